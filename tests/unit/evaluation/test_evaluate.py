from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.artifacts import ATTRIBUTES, FEATURES, METRICS, PREDICTIONS, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.evaluation import metrics
from mammoclip.evaluation.classify import zero_shot_scores
from mammoclip.evaluation.evaluate import (
    Examples,
    compute_metrics,
    predict_probe,
    predict_zero_shot,
    predict_zero_shot_random,
    select_examples,
)
from mammoclip.evaluation.statistics import clustered_bootstrap

SECTION = EvaluateSection(datasets=["vindr"], num_resamples=50, confidence=0.8)
SPLITS = ("train", "validation", "test")


def pooled_of(number: int) -> list[float]:
    return [float(number), 0.5, -1.0]


def make_tables(num: int, order: list[int]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Features, images and attributes of images i00, i01, ...: splits take turns, two images a patient.

    Every fourth image has no mass label; all have a density. ``order`` is that of the rows, reversed in the images.
    """
    names = {number: f"i{number:02d}" for number in range(num)}
    features = pl.DataFrame(
        [(names[n], pooled_of(n), [float(n), 1.0]) for n in order], schema=FEATURES.schema, orient="row"
    )
    images = pl.DataFrame(
        {
            "image_id": [names[n] for n in reversed(order)],
            "patient_id": [f"p{n // 6}-{n % 3}" for n in reversed(order)],
            "split": [SPLITS[n % 3] for n in reversed(order)],
        }
    )
    masses = [("vindr", names[n], "mass", n % 2, "table") for n in order if n % 4]
    densities = [("vindr", names[n], "density", n % 4, "table") for n in order]
    return features, images, pl.DataFrame(masses + densities, schema=ATTRIBUTES.schema, orient="row")


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(24)))
def test_examples_join_features_patients_and_labels_image_by_image(order: list[int]) -> None:
    features, images, attributes = make_tables(24, order)
    found = select_examples(features, images, attributes, "mass", "test")
    numbers = [n for n in range(24) if n % 3 == 2 and n % 4]
    assert found.image_ids == [f"i{n:02d}" for n in numbers]
    assert found.patients == [f"p{n // 6}-{n % 3}" for n in numbers]
    assert found.pooled.tolist() == [pooled_of(n) for n in numbers]
    assert found.embeddings.tolist() == [[n, 1.0] for n in numbers]
    assert found.labels is not None
    assert found.labels.tolist() == [n % 2 for n in numbers]


def test_the_splits_share_no_image_and_no_patient() -> None:
    tables = make_tables(24, list(range(24)))
    parts = [select_examples(*tables, "density", split) for split in SPLITS]
    assert sorted(i for part in parts for i in part.image_ids) == [f"i{n:02d}" for n in range(24)]
    assert sum(len(set(part.patients)) for part in parts) == len({p for part in parts for p in part.patients})


def test_labels_are_those_of_the_task() -> None:
    tables = make_tables(24, list(range(24)))
    labels = select_examples(*tables, "density", "train").labels
    assert labels is not None
    assert labels.tolist() == [n % 4 for n in range(0, 24, 3)]


def test_what_was_read_from_reports_is_no_ground_truth() -> None:
    features, images, attributes = make_tables(24, list(range(24)))
    read = attributes.with_columns(
        source=pl.when(pl.col("image_id") < "i12").then(pl.lit("report")).otherwise("source")
    )
    assert select_examples(features, images, read, "density", "train").image_ids == ["i12", "i15", "i18", "i21"]


def test_without_attributes_every_image_is_an_example_without_label() -> None:
    features, images, _ = make_tables(24, list(range(24)))
    found = select_examples(features, images, None, "mass", "test")
    assert found.image_ids == [f"i{n:02d}" for n in range(2, 24, 3)]
    assert found.labels is None


def make_examples(seed: int, num_patients: int = 30, shift: float = 0.0, num_classes: int = 2) -> Examples:
    """Two images a patient, with the label of the patient; the first feature moves by ``shift`` per class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_patients) % num_classes).repeat(2)
    pooled = rng.normal(size=(len(labels), 5))
    pooled[:, 0] += shift * labels
    embeddings = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    patients = [f"p{seed}-{n // 2}" for n in range(len(labels))]
    return Examples([f"i{seed}-{n}" for n in range(len(labels))], patients, pooled, embeddings, labels)


def scores_of(predictions: pl.DataFrame) -> np.ndarray[Any, Any]:
    return np.array(predictions["scores"].to_list())


def test_zero_shot_predictions_hold_the_scores_of_the_embeddings(tmp_path: Path) -> None:
    test, prompts = make_examples(0), np.eye(5)[:2]
    predictions = predict_zero_shot(test, "mass", prompts)
    write_table(predictions, PREDICTIONS, tmp_path / "predictions.parquet")  # it is the published table
    assert test.labels is not None
    assert predictions["image_id"].to_list() == test.image_ids
    assert predictions["patient_id"].to_list() == test.patients
    assert predictions["label"].to_list() == test.labels.tolist()
    assert set(predictions["task"]) == {"mass"}
    assert set(predictions["protocol"]) == {"zero-shot"}
    np.testing.assert_array_equal(scores_of(predictions), zero_shot_scores(test.embeddings, prompts))


def test_images_without_labels_are_scored_all_the_same(tmp_path: Path) -> None:
    test = make_examples(0)
    unlabelled = dataclasses.replace(test, labels=None)
    predictions = predict_zero_shot(unlabelled, "mass", np.eye(5)[:2])
    write_table(predictions, PREDICTIONS, tmp_path / "predictions.parquet")
    assert predictions["label"].null_count() == len(test.image_ids)
    assert predictions["scores"].equals(predict_zero_shot(test, "mass", np.eye(5)[:2])["scores"])


def test_a_task_without_test_images_is_refused_with_a_sentence() -> None:
    features, images, attributes = make_tables(24, list(range(24)))
    nothing = select_examples(features, images, attributes.clear(), "mass", "test")
    with pytest.raises(ArtifactError, match="mass"):
        predict_zero_shot(nothing, "mass", np.eye(2))


def test_the_probe_finds_what_its_control_does_not() -> None:
    values: dict[str, list[float]] = {"probe": [], "probe-shuffled": []}
    for seed in range(10):
        train, validation, test = (make_examples(10 * seed + part, shift=1.5) for part in range(3))
        for predictions in predict_probe(train, validation, test, "mass", SECTION, seed=seed):
            (protocol,) = set(predictions["protocol"])
            values[protocol].append(metrics.auroc(predictions["label"].to_numpy(), scores_of(predictions)[:, 1]))
    assert np.mean(values["probe"]) > 0.8
    # Features that carry the label make one value of the control vary widely around 1/2; their mean does not.
    assert np.mean(values["probe-shuffled"]) == pytest.approx(0.5, abs=0.1)


def test_labels_of_the_test_images_move_no_score() -> None:
    train, validation, test = (make_examples(part, shift=1.0, num_classes=4) for part in range(3))
    assert test.labels is not None
    permuted = dataclasses.replace(test, labels=np.random.default_rng(0).permutation(test.labels))
    unlabelled = dataclasses.replace(test, labels=None)
    expected = list(predict_probe(train, validation, test, "density", SECTION, seed=0))
    for changed in (permuted, unlabelled):
        found = list(predict_probe(train, validation, changed, "density", SECTION, seed=0))
        assert [table["scores"].to_list() for table in found] == [table["scores"].to_list() for table in expected]


def test_every_class_of_the_task_has_a_score_even_if_training_lacks_it() -> None:
    train, validation, test = (make_examples(part, shift=3.0, num_classes=2) for part in range(3))
    for predictions in predict_probe(train, validation, test, "density", SECTION, seed=0):
        assert scores_of(predictions).shape == (60, 4)
        assert scores_of(predictions).sum(axis=1) == pytest.approx(np.ones(60))


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
    test = make_examples(2)

    def examples(labels: list[int] | None) -> Examples:
        values = None if labels is None else np.resize(labels, 60)
        return dataclasses.replace(make_examples(0), labels=values)

    with pytest.raises(ArtifactError, match=message):
        list(predict_probe(examples(train_labels), examples(validation_labels), test, "density", SECTION, seed=0))


def make_predictions(seed: int, task: str, protocol: str, num_classes: int) -> pl.DataFrame:
    test = make_examples(seed, num_classes=num_classes)
    scores = np.random.default_rng(seed).dirichlet(np.ones(num_classes), len(test.image_ids))
    predictions = predict_zero_shot(test, task, np.eye(5)[:num_classes])
    return predictions.with_columns(protocol=pl.lit(protocol), scores=pl.Series(scores.tolist()))


def test_metrics_of_a_finding_are_auroc_and_auprc_of_the_positive_score() -> None:
    predictions = make_predictions(0, "mass", "probe", 2)
    labels, scores = predictions["label"].to_numpy(), scores_of(predictions)[:, 1]
    table = compute_metrics(predictions, "main", "vindr", SECTION, seed=3)
    assert table["metric"].to_list() == ["auroc", "auprc"]
    assert table["value"].to_list() == [metrics.auroc(labels, scores), metrics.auprc(labels, scores)]


def test_metrics_of_density_are_macro_auroc_and_those_of_the_likeliest_class() -> None:
    predictions = make_predictions(0, "density", "probe", 4)
    labels, scores = predictions["label"].to_numpy(), scores_of(predictions)
    classes = scores.argmax(axis=1)
    table = compute_metrics(predictions, "main", "vindr", SECTION, seed=3)
    assert dict(table.select("metric", "value").iter_rows()) == {
        "macro_auroc": metrics.macro_auroc(labels, scores),
        "accuracy": metrics.accuracy(labels, classes),
        "balanced_accuracy": metrics.balanced_accuracy(labels, classes),
        "kappa": metrics.cohen_kappa(labels, classes, quadratic=True),
    }
    assert table["n_positive"].null_count() == 4


def test_intervals_resample_patients() -> None:
    predictions = make_predictions(0, "mass", "probe", 2)
    labels, scores = predictions["label"].to_numpy(), scores_of(predictions)[:, 1]
    expected = clustered_bootstrap(
        metrics.auroc, labels, scores, predictions["patient_id"].to_list(), num_resamples=50, confidence=0.8, seed=3
    )
    row = compute_metrics(predictions, "main", "vindr", SECTION, seed=3).row(0, named=True)
    assert (row["value"], row["ci_low"], row["ci_high"]) == (expected.value, expected.low, expected.high)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert (row["n"], row["n_positive"], row["num_patients"]) == (60, 30, 30)


def test_every_task_and_protocol_is_measured_on_its_own_rows(tmp_path: Path) -> None:
    parts = [
        make_predictions(number, task, protocol, 4 if task == "density" else 2)
        for number, (task, protocol) in enumerate(
            (task, protocol) for task in ("mass", "density") for protocol in ("zero-shot", "probe")
        )
    ]
    together = compute_metrics(pl.concat(parts), "main", "vindr", SECTION, seed=0)
    assert together.equals(pl.concat([compute_metrics(part, "main", "vindr", SECTION, seed=0) for part in parts]))
    assert set(together["run"]) == {"main"}
    assert set(together["dataset"]) == {"vindr"}
    write_table(together, METRICS, tmp_path / "metrics.parquet")


def test_the_order_of_the_predictions_does_not_matter() -> None:
    predictions = make_predictions(0, "density", "probe", 4)
    shuffled = predictions.sample(fraction=1.0, shuffle=True, seed=1)
    assert compute_metrics(shuffled, "main", "vindr", SECTION, 0).equals(
        compute_metrics(predictions, "main", "vindr", SECTION, 0)
    )


def test_a_metric_without_a_value_passes_into_the_table_as_nan(tmp_path: Path) -> None:
    predictions = make_predictions(0, "mass", "probe", 2).with_columns(label=pl.lit(0, pl.Int32))
    table = compute_metrics(predictions, "main", "vindr", SECTION, seed=0)
    write_table(table, METRICS, tmp_path / "metrics.parquet")
    for row in read_table(METRICS, tmp_path / "metrics.parquet").iter_rows(named=True):
        assert all(math.isnan(row[column]) for column in ("value", "ci_low", "ci_high"))
        assert (row["n"], row["n_positive"]) == (60, 0)


def test_metrics_that_need_every_class_are_nan_where_one_is_missing_and_the_others_are_not() -> None:
    predictions = make_predictions(0, "density", "probe", 4)
    without_d = predictions.filter(pl.col("label") < 3)
    values = dict(compute_metrics(without_d, "main", "vindr", SECTION, seed=0).select("metric", "value").iter_rows())
    assert [name for name, value in values.items() if math.isnan(value)] == ["macro_auroc"]


def test_a_class_that_validation_lacks_does_not_stop_the_probe() -> None:
    train, validation, test = (make_examples(part, shift=3.0, num_classes=3) for part in range(3))
    assert validation.labels is not None
    poorer = dataclasses.replace(validation, labels=np.minimum(validation.labels, 1))
    probe = next(iter(predict_probe(train, poorer, test, "density", SECTION, seed=0)))
    assert set(scores_of(probe).argmax(axis=1)) == {0, 1, 2}


def test_the_control_of_the_probe_is_mean_and_quantiles_over_its_permutations() -> None:
    train, validation, test = (make_examples(part, shift=1.0) for part in range(3))
    section = SECTION.model_copy(update={"num_permutations": 5, "confidence": 0.5})
    tables = list(predict_probe(train, validation, test, "mass", section, seed=0))
    assert [table["repeat"].unique().to_list() for table in tables] == [[0], [0], [1], [2], [3], [4]]
    values = [metrics.auroc(table["label"].to_numpy(), scores_of(table)[:, 1]) for table in tables[1:]]
    assert len(set(values)) > 1
    found = compute_metrics(pl.concat(tables), "main", "vindr", section, 0)
    row = found.filter(protocol="probe-shuffled", metric="auroc").row(0, named=True)
    assert row["value"] == pytest.approx(np.mean(values))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.quantile(values, [0.25, 0.75])))
    assert (row["n"], row["num_patients"]) == (len(test.image_ids), len(set(test.patients)))


def test_random_directions_show_what_chance_is_for_the_embeddings() -> None:
    faint, strong = (make_examples(0, num_patients=200, shift=shift) for shift in (0.0, 8.0))
    rows = []
    for test in (faint, strong):
        tables = list(predict_zero_shot_random(test, "mass", seed=0))
        assert len({str(table["scores"].to_list()) for table in tables}) == len(tables) == 100
        table = compute_metrics(pl.concat(tables), "main", "vindr", SECTION, 0)
        rows.append(table.filter(metric="auroc").row(0, named=True))
    assert all(row["value"] == pytest.approx(0.5, abs=0.12) for row in rows)
    widths = [row["ci_high"] - row["ci_low"] for row in rows]
    assert widths[1] > 2 * widths[0], "a finding that stands out is ranked by most directions, one way or the other"
