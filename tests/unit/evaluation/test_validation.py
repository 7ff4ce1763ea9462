from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.retrieval import retrieval_metrics
from mammoclip.evaluation.validation import UNKNOWN, BreastScorer, Views, breast_labels, breast_retrieval
from mammoclip.text import prompt_ensemble

Array = np.ndarray[Any, Any]

TASKS = {"mass": 2, "suspicious_calcification": 2, "density": 4}
RETRIEVAL = {
    *(f"{kind}_recall_at_{k}" for kind in ("image_to_text", "text_to_image", "chance") for k in (1, 5, 10)),
    "image_to_text_median_rank",
    "text_to_image_median_rank",
}
DIM = 16


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def breast(mass: int, calcification: int, density: int) -> Views:
    labels = (("mass", mass), ("suspicious_calcification", calcification), ("density", density))
    return (labels, labels)


def cohort(num: int, seed: int = 0) -> tuple[list[Views], Array]:
    """Labelled breasts, every class among them, and their labels, N x 3."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, classes, num) for classes in TASKS.values()], axis=1)
    labels[:4] = np.arange(4)[:, None] % np.array([2, 2, 4])
    return [breast(*map(int, row)) for row in labels], labels


def embed(num: int, seed: int) -> tuple[Array, Array, Array]:
    """Random images and texts, N x 2 x D, and ids, all different."""
    rng = np.random.default_rng(seed)
    images, texts = (unit(rng.normal(size=(num, 2, DIM))).astype(np.float32) for _ in range(2))
    return images, texts, rng.permutation(2 * num).reshape(num, 2)


def embed_prompts(scorer: BreastScorer, seed: int = 1) -> Array:
    return unit(np.random.default_rng(seed).normal(size=(len(scorer.prompts), DIM))).astype(np.float32)


def score(scorer: BreastScorer, num: int, seed: int = 2) -> dict[str, float]:
    return scorer(np.arange(num), *embed(num, seed), embed_prompts(scorer))


@pytest.mark.parametrize(
    ("views", "label"),
    [
        ([[("mass", 0)], [("mass", 1)]], 1),
        ([[("mass", 1)], [("mass", 0)]], 1),
        ([[("mass", 0)], [("mass", 0)]], 0),
        ([[("mass", 0)], [("asymmetry", 1)]], 0),  # the other view says nothing of a mass
        ([[("no_finding", 1)]], 0),
        ([[("no_finding", 1)], [("mass", 1)]], 1),
        ([[("asymmetry", 1)], [("density", 3)]], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_a_finding_in_any_view_is_present_and_in_none_that_speak_of_it_absent(views: Views, label: int) -> None:
    assert breast_labels([views], "mass").tolist() == [label]


def test_no_finding_says_nothing_of_density() -> None:
    assert breast_labels([[[("no_finding", 1)]], [[("density", 0)]]], "density").tolist() == [UNKNOWN, 0]


@given(st.integers(1, 5), st.integers(0, 3))
def test_the_prompts_are_the_ensembles_of_all_tasks_in_class_order(size: int, seed: int) -> None:
    expected = [sentence for task in TASKS for sentences in prompt_ensemble(task, size, seed) for sentence in sentences]
    assert list(BreastScorer([], size, seed).prompts) == expected


def test_the_metrics_have_the_names_of_their_tasks_and_directions() -> None:
    breasts, _ = cohort(20)
    zero_shot = {"zero_shot_auroc_mass", "zero_shot_auroc_suspicious_calcification", "zero_shot_macro_auroc_density"}
    found = score(BreastScorer(breasts, 2, seed=0), 20)
    assert found.keys() == zero_shot | RETRIEVAL
    assert all(type(value) is float and math.isfinite(value) for value in found.values())


def pairs_won(positives: list[float], negatives: list[float]) -> float:
    won = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    return sum(won) / len(won)


def zero_shot_spelled_out(image: Array, classes: list[Array]) -> list[float]:
    powers = [math.exp(float(image @ direction)) for direction in classes]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("prompts_per_class", [1, 3])
def test_zero_shot_equals_its_definition_spelled_out(prompts_per_class: int) -> None:
    breasts, labels = cohort(30)
    breasts[7], breasts[11] = [[("birads", 2)]], []  # nothing is known of them
    scorer = BreastScorer(breasts, prompts_per_class, seed=0)
    images, texts, ids = embed(30, seed=3)
    prompts = embed_prompts(scorer)
    found = scorer(np.arange(30), images, texts, ids, prompts)
    given = iter(prompts.astype(np.float64))
    for column, (task, num_classes) in enumerate(TASKS.items()):
        ensembles = prompt_ensemble(task, prompts_per_class, 0)
        classes = [unit(np.mean([next(given) for _ in sentences], axis=0)) for sentences in ensembles]
        scores = {
            row: np.mean([zero_shot_spelled_out(image, classes) for image in images[row]], axis=0)
            for row in range(30)
            if row not in (7, 11)
        }
        of_class = [
            pairs_won(
                [float(s[k]) for row, s in scores.items() if labels[row, column] == k],
                [float(s[k]) for row, s in scores.items() if labels[row, column] != k],
            )
            for k in range(num_classes)
        ]
        name = f"zero_shot_auroc_{task}" if num_classes == 2 else f"zero_shot_macro_auroc_{task}"
        assert found[name] == pytest.approx(of_class[1] if num_classes == 2 else np.mean(of_class))


def test_a_model_that_sees_a_mass_scores_1_and_one_that_sees_nothing_one_half() -> None:
    breasts, labels = cohort(40)
    scorer = BreastScorer(breasts, 1, seed=0)
    _, texts, ids = embed(40, seed=4)
    prompts = np.eye(len(scorer.prompts), DIM)  # the first two are "no mass" and "mass"
    images = np.repeat(prompts[labels[:, :1]], 2, axis=1)
    found = scorer(np.arange(40), images, texts, ids, prompts)
    assert found["zero_shot_auroc_mass"] == 1
    assert found["zero_shot_macro_auroc_density"] == 0.5


def test_a_task_without_one_of_its_classes_is_left_out_and_told() -> None:
    breasts = [breast(0, number % 2, number % 3 + 1) for number in range(12)]  # no mass, and no density A
    scorer = BreastScorer(breasts, 2, seed=0)
    assert scorer.missing_classes == {"mass": [1], "density": [0]}
    assert score(scorer, 12).keys() == {"zero_shot_auroc_suspicious_calcification"} | RETRIEVAL


def test_breasts_without_labels_still_have_retrieval() -> None:
    scorer = BreastScorer([[] for _ in range(6)], 2, seed=0)
    assert scorer.missing_classes == {"mass": [0, 1], "suspicious_calcification": [0, 1], "density": [0, 1, 2, 3]}
    assert score(scorer, 6).keys() == RETRIEVAL


def test_nothing_is_told_where_every_class_occurs() -> None:
    assert BreastScorer(cohort(10)[0], 2, seed=0).missing_classes == {}


def test_metrics_do_not_depend_on_the_order_and_breasts_may_be_left_out() -> None:
    breasts, _ = cohort(30)
    scorer = BreastScorer(breasts, 2, seed=0)
    images, texts, ids = embed(30, seed=5)
    prompts = embed_prompts(scorer)
    chosen = np.random.default_rng(6).permutation(30)[:20]
    found = scorer(chosen, images[chosen], texts[chosen], ids[chosen], prompts)
    alone = BreastScorer([breasts[row] for row in sorted(chosen)], 2, seed=0)
    rows = np.sort(chosen)
    assert found == pytest.approx(alone(np.arange(20), images[rows], texts[rows], ids[rows], prompts))


def test_retrieval_compares_breasts_by_the_mean_of_the_four_cosines() -> None:
    images, texts, ids = embed(25, seed=7)
    cosines = np.zeros((25, 25))
    for view in (0, 1):
        for text in (0, 1):
            cosines += images[:, view].astype(np.float64) @ texts[:, text].T.astype(np.float64) / 4
    # With the rows of the matrix as images and the axes as texts, the dot products are the matrix.
    assert breast_retrieval(images, texts, ids) == retrieval_metrics(cosines, np.eye(25), np.arange(25))


def test_breasts_say_the_same_if_both_texts_are_equal_in_any_order() -> None:
    images = np.repeat(np.eye(3, DIM)[:, None], 2, axis=1)
    texts = images[[1, 0, 2]]  # the texts of the first two are exchanged
    recalls = {
        name: breast_retrieval(images, texts, np.array(ids))["image_to_text_recall_at_1"]
        for name, ids in {
            "different": [[1, 2], [3, 4], [5, 6]],
            "one equal": [[1, 2], [1, 4], [5, 6]],
            "both equal": [[1, 2], [1, 2], [5, 6]],
            "in another order": [[1, 2], [2, 1], [5, 6]],
        }.items()
    }
    assert recalls == {"different": 1 / 3, "one equal": 1 / 3, "both equal": 1, "in another order": 1}


def test_prompts_that_are_not_those_asked_for_are_refused() -> None:
    scorer = BreastScorer(cohort(8)[0], 2, seed=0)
    with pytest.raises(ValueError, match=f"expected the embeddings of {len(scorer.prompts)} prompts, found 3"):
        scorer(np.arange(8), *embed(8, seed=8), np.eye(3, DIM))


def test_embeddings_that_are_not_finite_are_refused() -> None:
    scorer = BreastScorer(cohort(8)[0], 2, seed=0)
    images, texts, ids = embed(8, seed=9)
    images[0, 0, 0] = np.nan
    with pytest.raises(MammoClipError, match="did the model diverge"):
        scorer(np.arange(8), images, texts, ids, embed_prompts(scorer))
