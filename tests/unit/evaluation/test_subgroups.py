from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.metrics import auroc, macro_auroc
from mammoclip.evaluation.statistics import clustered_bootstrap
from mammoclip.evaluation.subgroups import age_decades, size_bins, subgroup_metrics

Array = np.ndarray[Any, Any]


def simulate(seed: int = 0, num_patients: int = 60) -> tuple[Array, Array, Array, Array]:
    """Labels, scores, groups of patients and patients; group c has 4 patients only."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(num_patients), 4)
    groups = np.array(["c"] * 4 + ["a", "b"] * ((num_patients - 4) // 2))[patients]
    labels = rng.integers(0, 2, patients.size)
    labels[:16] = [1] + [0] * 15
    return labels, labels + rng.normal(size=patients.size), groups, patients


def test_a_subgroup_is_measured_as_if_it_were_all_cases() -> None:
    labels, scores, groups, patients = simulate()
    table = subgroup_metrics(auroc, labels, scores, groups, patients, num_resamples=50, confidence=0.8, seed=3)
    assert table["group"].to_list() == ["a", "b", "c"]
    for row in table.filter(pl.col("group") != "c").iter_rows(named=True):
        chosen = groups == row["group"]
        expected = clustered_bootstrap(
            auroc, labels[chosen], scores[chosen], patients[chosen], num_resamples=50, confidence=0.8, seed=3
        )
        assert (row["value"], row["ci_low"], row["ci_high"]) == (expected.value, expected.low, expected.high)
        assert (row["n_positive"], row["n_negative"]) == (labels[chosen].sum(), (1 - labels[chosen]).sum())
        assert (row["num_clusters"], row["reason"]) == (28, None)


def test_a_subgroup_with_few_cases_of_a_class_has_counts_and_a_reason_and_no_number() -> None:
    labels, scores, groups, patients = simulate()
    table = subgroup_metrics(auroc, labels, scores, groups, patients, num_resamples=10, seed=0)
    assert table.row(2) == ("c", 1, 15, 4, None, None, None, "fewer than 10 positive cases")
    turned = subgroup_metrics(auroc, 1 - labels, scores, groups, patients, num_resamples=10, seed=0)
    assert turned.row(2) == ("c", 15, 1, 4, None, None, None, "fewer than 10 negative cases")


@pytest.mark.parametrize(("num_positive", "has_number"), [(9, False), (10, True)])
def test_ten_cases_of_each_class_are_enough(num_positive: int, has_number: bool) -> None:
    labels = [1] * num_positive + [0] * 10
    table = subgroup_metrics(auroc, labels, labels, ["a"] * len(labels), range(len(labels)), seed=0)
    assert (table["value"].item() is not None) == has_number
    assert (table["reason"].item() is None) == has_number


def test_cases_of_no_known_group_come_last_and_are_counted() -> None:
    labels, scores, groups, patients = simulate()
    known = pl.Series(groups).replace("a", None)
    table = subgroup_metrics(auroc, labels, scores, known, patients, num_resamples=10, seed=0)
    assert table["group"].to_list() == ["b", "c", None]
    assert (table["n_positive"] + table["n_negative"]).sum() == labels.size


def test_of_what_only_positives_have_each_group_is_measured_against_all_negatives() -> None:
    labels, scores, _, patients = simulate()
    sizes = pl.Series(np.where(labels == 1, np.arange(labels.size) % 2 * 30.0, np.nan)).fill_nan(None)
    groups = size_bins(sizes, [20])
    table = subgroup_metrics(auroc, labels, scores, groups, patients, all_negatives=True, num_resamples=10, seed=0)
    assert table["group"].to_list() == ["< 20", ">= 20"]
    assert table["n_negative"].to_list() == [(labels == 0).sum()] * 2
    assert table["n_positive"].sum() == labels.sum()
    large = (labels == 0) | (sizes.fill_null(0).to_numpy() > 20)
    assert table["value"][1] == auroc(labels[large], scores[large])


def test_groups_are_sorted_as_their_values_are_and_named_as_text() -> None:
    labels, scores, _, patients = simulate()
    ages = pl.Series(np.where(np.arange(labels.size) < 120, 100, 45))
    table = subgroup_metrics(auroc, labels, scores, age_decades(ages), patients, num_resamples=10, seed=0)
    assert table["group"].to_list() == ["40-49", "100-109"]
    by_vendor = subgroup_metrics(auroc, labels, scores, [2] * 120 + [10] * 120, patients, num_resamples=10, seed=0)
    assert by_vendor["group"].to_list() == ["2", "10"]


def test_one_patient_alone_has_a_value_and_no_interval() -> None:
    labels = [0, 1] * 10
    table = subgroup_metrics(auroc, labels, labels, ["a"] * 20, ["p"] * 20, seed=0)
    assert table.select("value", "ci_low", "ci_high").row(0) == (1.0, None, None)


def test_decades_and_bins_have_the_lower_edge_and_not_the_upper() -> None:
    assert age_decades([0, 39, 40, 49, 120, None]).to_list() == ["0-9", "30-39", "40-49", "40-49", "120-129", None]
    expected = ["< 10", "10 to < 20", "10 to < 20", ">= 20", None]
    assert size_bins([9.9, 10, 19.9, 20, None], [10, 20]).to_list() == expected


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        subgroup_metrics(auroc, [0, 1], [0.1, 0.2], ["a"], [1, 2], seed=0)
    with pytest.raises(MammoClipError, match="0 or 1; found 2"):
        subgroup_metrics(macro_auroc, [0, 2], np.eye(2), ["a", "a"], [1, 2], seed=0)
    with pytest.raises(MammoClipError, match="1 of 20 scores"):
        subgroup_metrics(auroc, [0, 1] * 10, [math.nan] + [0.5] * 19, ["a"] * 20, range(20), seed=0)
    with pytest.raises(MammoClipError, match=r"2 ages lie outside 0 to 120 years, e\.g\. 999"):
        age_decades([45, 999, -1])
    with pytest.raises(ValueError, match="ascending"):
        size_bins([1.0], [20, 10])
    with pytest.raises(ValueError, match="at least one"):
        size_bins([1.0], [])
    with pytest.raises(MammoClipError, match="2 of 3 sizes"):
        size_bins([1.0, -1.0, math.nan], [10])
