from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import METRICS, write_table
from mammoclip.config import EvaluateSection
from mammoclip.evaluation import calibration, metrics
from mammoclip.evaluation.predict import random_zero_shot
from mammoclip.evaluation.statistics import clustered_bootstrap
from mammoclip.evaluation.summary import (
    Row,
    cases_of,
    choices_of,
    control_rows,
    majority_rows,
    of_images,
    summarise,
)
from tests.unit.evaluation.cohort import images_of, make_examples, make_predictions, no_groups

SECTION = EvaluateSection(num_resamples=50, confidence=0.8)
TOLD = {"task": "mass", "protocol": "a", "fraction": 0.0, "seed": 0, **of_images(SECTION)}


def summary(predictions: pl.DataFrame, groups: pl.DataFrame | None = None, seed: int = 3) -> list[Row]:
    images = images_of(predictions)
    return list(summarise(predictions, images, no_groups() if groups is None else groups, SECTION, seed))


def find(rows: list[Row], metric: str, level: str = "image", **wanted: Any) -> Row:
    wanted = {"metric": metric, "level": level, "subgroup": "all", **wanted}
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def test_metrics_of_two_classes_are_those_of_the_positive_probability_of_test_images() -> None:
    predictions = make_predictions()
    test = cases_of(predictions.filter(split="test"))
    rows = summary(predictions)
    for name, expected in {
        "auroc": metrics.auroc(test.labels, test.scores),
        "auprc": metrics.auprc(test.labels, test.scores),
        "pf1": metrics.probabilistic_f1(test.labels, test.scores),
        "sensitivity_at_95_specificity": metrics.sensitivity_at_specificity(test.labels, test.scores, 0.95),
        "specificity_at_90_sensitivity": metrics.specificity_at_sensitivity(test.labels, test.scores, 0.9),
        "brier": calibration.brier_score(test.labels, test.scores),
        "ece": calibration.expected_calibration_error(test.labels, test.scores),
    }.items():
        assert find(rows, name)["value"] == expected


def test_metrics_of_several_classes_have_the_majority_beside_them() -> None:
    predictions = make_predictions(num_classes=4, task="density")
    test = cases_of(predictions.filter(split="test"))
    rows = summary(predictions)
    assert find(rows, "macro_auroc")["value"] == metrics.macro_auroc(test.labels, test.probabilities)
    assert find(rows, "kappa")["value"] == metrics.cohen_kappa(test.labels, test.probabilities, quadratic=True)
    assert find(rows, "kappa")["n_positive"] is None
    baseline = {row["metric"]: row["value"] for row in majority_rows(TOLD, test, SECTION, 0)}
    share = np.bincount(test.labels).max() / 60
    assert baseline == {"macro_auroc": 0.5, "accuracy": share, "balanced_accuracy": 0.25, "kappa": 0.0}


def test_intervals_resample_patients() -> None:
    predictions = make_predictions()
    test = cases_of(predictions.filter(split="test"))
    options: dict[str, Any] = {"num_resamples": 50, "confidence": 0.8, "seed": 3}
    expected = clustered_bootstrap(metrics.auroc, test.labels, test.scores, test.patients, **options)
    row = find(summary(predictions), "auroc")
    assert (row["value"], row["ci_low"], row["ci_high"]) == (expected.value, expected.low, expected.high)
    assert (row["n"], row["n_positive"], row["num_patients"]) == (60, 30, 30)


def test_breasts_and_exams_are_measured_beside_images() -> None:
    rows = summary(make_predictions())
    counts = {(row["level"], row["pooling"]): row["n"] for row in rows}
    assert counts == {("image", "none"): 60, ("breast", "mean"): 60, ("breast", "max"): 60, ("exam", "mean"): 30,
                      ("exam", "max"): 30}  # fmt: skip
    assert find(rows, "auroc", "exam", pooling="mean")["value"] > find(rows, "auroc")["value"]


def test_several_classes_are_not_pooled_by_their_maximum() -> None:
    assert {row["pooling"] for row in summary(make_predictions(num_classes=4))} == {"none", "mean"}


def test_temperature_and_threshold_come_from_validation_images_alone() -> None:
    predictions = make_predictions(num_patients=60)
    test = pl.col("split") == "test"
    chosen = choices_of(predictions)
    permuted = predictions.with_columns(label=pl.when(test).then(1 - pl.col("label")).otherwise("label"))
    assert choices_of(permuted) == chosen
    otherwise = predictions.with_columns(label=pl.when(test).then("label").otherwise(1 - pl.col("label")))
    assert choices_of(otherwise) != chosen


def test_calibration_is_measured_before_and_after_the_temperature() -> None:
    sharp = make_predictions(num_patients=200).with_columns(
        # Probabilities far too sure of themselves: squared odds.
        scores=pl.col("scores").list.eval(pl.element().pow(4) / pl.element().pow(4).sum())
    )
    rows = summary(sharp)
    assert choices_of(sharp).temperature == pytest.approx(4 / 1, rel=0.5)
    assert find(rows, "ece_calibrated")["value"] < find(rows, "ece")["value"] / 2
    assert find(rows, "brier_calibrated")["value"] < find(rows, "brier")["value"]


def test_where_no_temperature_fits_the_reason_stands_in_place_of_a_number() -> None:
    rows = summary(make_predictions(skill=30.0))
    row = find(rows, "ece_calibrated")
    assert row["value"] is None
    assert "separated perfectly" in row["reason"]
    without = summary(make_predictions().filter(pl.col("split") == "test"))
    assert "there are no validation images" in find(without, "balanced_accuracy")["reason"]


def test_a_class_that_is_not_tested_is_a_sentence_and_never_one_half(tmp_path: Path) -> None:
    negatives = make_predictions().filter((pl.col("split") == "validation") | (pl.col("label") == 0))
    rows = summary(negatives)
    row = find(rows, "auroc")
    assert (row["value"], row["ci_low"], row["reason"]) == (None, None, "no image of class 1 is tested")
    frame = pl.DataFrame([{"run": "r", "dataset": "d"} | row for row in rows], schema=METRICS.schema)
    write_table(frame, METRICS, tmp_path / "metrics.parquet")
    without_d = make_predictions(num_classes=4).filter((pl.col("split") == "validation") | (pl.col("label") < 3))
    rows = summary(without_d)
    assert find(rows, "macro_auroc")["reason"] == "no image of class 3 is tested"
    assert find(rows, "accuracy")["value"] is not None


def test_subgroups_have_an_auroc_or_the_reason_why_not() -> None:
    predictions = make_predictions(num_patients=60)
    views = ["CC", "MLO"] * 59 + ["XCCL", "XCCL"]
    test = predictions.filter(split="test")
    groups = pl.DataFrame({"image_id": test["image_id"], "view": views})
    rows = {row["group"]: row for row in summary(predictions, groups) if row["subgroup"] == "view"}
    assert set(rows) == {"CC", "MLO", "XCCL"}
    cc = cases_of(test.filter(pl.Series(views) == "CC"))
    assert rows["CC"]["value"] == metrics.auroc(cc.labels, cc.scores)
    assert rows["XCCL"]["value"] is None
    assert "fewer than 10" in rows["XCCL"]["reason"]


def test_controls_have_mean_and_quantiles_over_their_repeats() -> None:
    test = cases_of(make_predictions().filter(split="test"))
    rng = np.random.default_rng(0)
    repeats = [np.stack([1 - p, p], axis=1) for p in rng.random((5, len(test.labels)))]
    row = next(iter(control_rows(TOLD, test, repeats, SECTION)))
    values = [metrics.auroc(test.labels, repeat[:, 1]) for repeat in repeats]
    assert row["value"] == pytest.approx(np.mean(values))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.quantile(values, [0.1, 0.9])))


def test_random_directions_show_what_chance_is_for_the_embeddings() -> None:
    rows = []
    for shift in (0.0, 8.0):
        test = make_examples(0, num_patients=200, shift=shift)
        assert test.labels is not None
        scores = list(random_zero_shot(test, 2, seed=0))
        cases = cases_of(
            make_predictions(num_patients=200).filter(split="test").with_columns(label=pl.Series(test.labels))
        )
        rows.append(next(iter(control_rows(TOLD, cases, scores, SECTION))))
    assert all(row["value"] == pytest.approx(0.5, abs=0.12) for row in rows)
    widths = [row["ci_high"] - row["ci_low"] for row in rows]
    assert widths[1] > 2 * widths[0], "a finding that stands out is ranked by most directions, one way or the other"


def test_the_order_of_the_predictions_does_not_matter() -> None:
    predictions = make_predictions(num_classes=4)
    shuffled = predictions.sample(fraction=1.0, shuffle=True, seed=1)
    values = [
        sorted((r["metric"], r["level"], r["ci_low"]) for r in summary(p) if r["value"])
        for p in (predictions, shuffled)
    ]
    assert [v[:2] for v in values[0]] == [v[:2] for v in values[1]]
    assert [v[2] for v in values[0]] == pytest.approx([v[2] for v in values[1]])
