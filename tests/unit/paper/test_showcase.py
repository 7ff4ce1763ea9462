import polars as pl
import pytest

from mammoclip.config import EvaluateSection, TaskSection
from mammoclip.errors import ArtifactError
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.showcase import build_showcase


def test_every_scored_image_has_a_card_with_every_task(inputs: Inputs, evaluate: EvaluateSection) -> None:
    showcase = build_showcase(inputs.datasets["films"], inputs.main.predictions["films"], evaluate.tasks, 100, seed=1)
    assert len(showcase.cards) == showcase.num_scored == 23
    assert all([task for task, _ in card.scores] == [
        "Mass", "Suspicious calcification", "Breast density",
    ] for card in showcase.cards)  # fmt: skip


def test_scores_are_those_of_the_predictions(inputs: Inputs, evaluate: EvaluateSection) -> None:
    predictions = inputs.main.predictions["films"]
    card = build_showcase(inputs.datasets["films"], predictions, evaluate.tasks, 1, seed=1).cards[0]
    scores = predictions.filter(image_id=card.crop.image_id)
    mass = scores.filter(task="mass")["scores"][0]
    density = scores.filter(task="density")["scores"][0]
    assert card.scores[0][1] == f"{mass[1]:.3f}"
    assert card.scores[2][1].replace("\u00a0", " ").split(", ") == [
        f"{name} {score:.3f}" for name, score in zip("ABCD", density, strict=True)
    ]


def test_the_source_is_credited_by_adapter(inputs: Inputs, evaluate: EvaluateSection) -> None:
    showcase = build_showcase(inputs.datasets["films"], inputs.main.predictions["films"], evaluate.tasks, 1, seed=1)
    assert showcase.source is not None
    assert showcase.source.doi == "10.7937/K9/TCIA.2016.7O02S9CY"


def test_a_large_data_set_is_sampled(inputs: Inputs, evaluate: EvaluateSection) -> None:
    showcase = build_showcase(inputs.datasets["films"], inputs.main.predictions["films"], evaluate.tasks, 4, seed=1)
    assert (len(showcase.cards), showcase.num_scored) == (4, 23)


def test_an_image_without_a_score_is_an_error(inputs: Inputs, evaluate: EvaluateSection) -> None:
    predictions = inputs.main.predictions["films"].filter(pl.col("task") != "density")
    with pytest.raises(ArtifactError, match="has no zero-shot score for task 'density'"):
        build_showcase(inputs.datasets["films"], predictions, evaluate.tasks, 1, seed=1)


def test_any_task_is_shown_by_its_name_and_its_classes_by_their_values(inputs: Inputs) -> None:
    predictions = inputs.main.predictions["films"]
    renamed = pl.concat(
        predictions.filter(task=old).with_columns(task=pl.lit(new))
        for old, new in (("mass", "skin_thickening"), ("density", "birads"))
    )
    tasks = {"skin_thickening": TaskSection(), "birads": TaskSection(values=[1, 2, 4, 5])}
    (thickening, _), (birads, scores) = (
        build_showcase(inputs.datasets["films"], renamed, tasks, 1, seed=1).cards[0].scores
    )
    assert (thickening, birads) == ("Skin thickening", "BI-RADS")
    assert [part.split("\u00a0")[0] for part in scores.split(", ")] == ["1", "2", "4", "5"]
