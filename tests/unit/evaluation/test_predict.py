from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import PREDICTIONS, PROMPTS, write_table
from mammoclip.errors import ArtifactError
from mammoclip.evaluation import metrics
from mammoclip.evaluation.classify import zero_shot_scores
from mammoclip.evaluation.examples import Examples
from mammoclip.evaluation.predict import (
    predict_probe,
    predict_zero_shot,
    prompt_directions,
    random_zero_shot,
)
from tests.unit.evaluation.cohort import make_examples, make_parts

STRENGTHS = (0.01, 0.1, 1.0)


def probe(parts: dict[str, Examples], num_classes: int = 2, num_permutations: int = 3, seed: int = 0) -> pl.DataFrame:
    options = {"fraction": 1.0, "seed": seed, "num_permutations": num_permutations}
    return predict_probe(parts, "mass", num_classes, STRENGTHS, **options)


def scores_of(predictions: pl.DataFrame) -> np.ndarray[Any, Any]:
    return np.array(predictions["scores"].to_list())


def make_prompts(rows: list[tuple[str, int, list[float]]]) -> pl.DataFrame:
    full = [(task, number, "a sentence", "sha", 14.0, embedding) for task, number, embedding in rows]
    return pl.DataFrame(full, schema=PROMPTS.schema, orient="row")


def test_the_direction_of_a_class_is_the_mean_of_its_sentences() -> None:
    prompts = make_prompts([("mass", 1, [0, 1]), ("mass", 0, [1, 0]), ("mass", 1, [1, 0]), ("density", 0, [0, 1])])
    assert prompt_directions(prompts, "mass") == pytest.approx(np.array([[1, 0], [0.5**0.5, 0.5**0.5]]))


def test_classes_that_have_one_direction_or_no_prompts_are_a_sentence() -> None:
    with pytest.raises(ArtifactError, match="no prompts of the task 'birads'"):
        prompt_directions(make_prompts([("mass", 0, [1, 0])]), "birads")
    with pytest.raises(ArtifactError, match="the same embedding"):
        prompt_directions(make_prompts([("mass", 0, [1, 0]), ("mass", 1, [1, 0])]), "mass")


def test_zero_shot_predictions_hold_the_scores_of_the_embeddings_split_by_split(tmp_path: Path) -> None:
    parts = make_parts()
    del parts["train"]
    predictions = predict_zero_shot(parts, "mass", np.eye(5)[:2], logit_scale=5.0)
    write_table(predictions, PREDICTIONS, tmp_path / "predictions.parquet")  # it is the published table
    for split, part in parts.items():
        rows = predictions.filter(split=split)
        assert rows["image_id"].to_list() == part.image_ids
        np.testing.assert_array_equal(scores_of(rows), zero_shot_scores(part.embeddings, np.eye(5)[:2], 5.0))


def test_a_data_set_without_validation_images_is_scored_all_the_same() -> None:
    nobody = Examples([], [], np.zeros((0, 0)), np.zeros((0, 0)), None)
    parts = {"validation": nobody, "test": make_examples(0)}
    assert set(predict_zero_shot(parts, "mass", np.eye(5)[:2])["split"]) == {"test"}


def test_a_task_without_test_images_is_a_sentence() -> None:
    nothing = dataclasses.replace(make_examples(0), image_ids=[])
    with pytest.raises(ArtifactError, match="no test image can be scored for 'mass'"):
        predict_zero_shot({"test": nothing}, "mass", np.eye(5)[:2])


def test_the_probe_finds_what_its_control_does_not() -> None:
    values: dict[str, list[float]] = {"linear-probe": [], "linear-probe-shuffled": []}
    for seed in range(10):
        predictions = probe(make_parts(shift=1.5, seed=seed), num_permutations=1, seed=seed)
        for protocol, found in values.items():
            rows = predictions.filter(protocol=protocol, split="test")
            found.append(metrics.auroc(rows["label"].to_numpy(), scores_of(rows)[:, 1]))
    assert np.mean(values["linear-probe"]) > 0.8
    # Features that carry the label make one value of the control vary widely around 1/2; their mean does not.
    assert np.mean(values["linear-probe-shuffled"]) == pytest.approx(0.5, abs=0.1)


def test_labels_of_the_test_images_move_no_score_and_no_choice() -> None:
    parts = make_parts(shift=1.0, num_classes=4)
    test = parts["test"]
    assert test.labels is not None
    expected = probe(parts, 4).drop("label")
    for labels in (np.random.default_rng(0).permutation(test.labels), None):
        changed = {**parts, "test": dataclasses.replace(test, labels=labels)}
        assert probe(changed, 4).drop("label").equals(expected)


def test_validation_labels_do_choose_the_strength() -> None:
    """The control of the test above: what it looks at moves when the right labels are permuted."""
    parts = make_parts(shift=1.0, num_patients=60)
    labels = parts["validation"].labels
    assert labels is not None
    permuted = dataclasses.replace(parts["validation"], labels=1 - labels)
    assert probe(parts)["selected"][0] != probe({**parts, "validation": permuted})["selected"][0]


def test_every_class_of_the_task_has_a_probability_even_if_training_lacks_it() -> None:
    predictions = probe(make_parts(shift=3.0, num_classes=2), num_classes=4)
    assert scores_of(predictions).shape[1] == 4
    assert scores_of(predictions).sum(axis=1) == pytest.approx(np.ones(len(predictions)))


def test_a_class_that_validation_lacks_does_not_stop_the_probe() -> None:
    parts = make_parts(shift=3.0, num_classes=3)
    labels = parts["validation"].labels
    assert labels is not None
    poorer = dataclasses.replace(parts["validation"], labels=np.minimum(labels, 1))
    rows = probe({**parts, "validation": poorer}, 3).filter(split="test", protocol="linear-probe")
    assert set(scores_of(rows).argmax(axis=1)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("train_labels", "validation_labels", "message"),
    [
        (None, [0, 1], "needs labels"),
        ([0, 1], None, "needs labels"),
        ([1, 1], [0, 1], r"two classes at least.*found \[1\] and \[0, 1\]"),
        ([0, 1, 2], [2, 3], r"two classes at least.*found \[0, 1, 2\] and \[2, 3\]"),
    ],
)
def test_labels_that_cannot_fit_a_probe_are_refused_with_a_sentence(
    train_labels: list[int] | None, validation_labels: list[int] | None, message: str
) -> None:
    def examples(labels: list[int] | None) -> Examples:
        values = None if labels is None else np.resize(labels, 60)
        return dataclasses.replace(make_examples(0), labels=values)

    parts = {"train": examples(train_labels), "validation": examples(validation_labels), "test": make_examples(2)}
    with pytest.raises(ArtifactError, match=message):
        probe(parts, 4)


def test_the_control_of_zero_shot_is_many_different_random_prompts() -> None:
    test = make_examples(0)
    scores = list(random_zero_shot(test, 2, seed=0))
    assert len({str(one.tolist()) for one in scores}) == 100
    assert all(one.shape == (60, 2) for one in scores)
