"""The main run against the others on the same test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import CHOICES, METRICS, PREDICTIONS, RETRIEVAL, STEPS
from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.delong import delong_test
from mammoclip.evaluation.examples import predictions_frame
from mammoclip.evaluation.metrics import auroc
from mammoclip.evaluation.statistics import holm, paired_clustered_bootstrap
from mammoclip.paper.comparisons import comparisons, comparisons_grid
from mammoclip.paper.inputs import Inputs, RunResults

LABELS = (0, 1, 0, 1)
SECTION = EvaluateSection.model_validate(
    {
        "matrix": [{"datasets": ["cohort"], "tasks": ["mass"], "protocols": ["zero-shot", "linear-probe"]}],
        "num_resamples": 50,
    }
)


def _predictions(
    scores: Sequence[float], labels: Sequence[int] = LABELS, patients: str = "abcdefgh", **told: object
) -> pl.DataFrame:
    """Rows of test images i0, i1, ..., one per patient unless said otherwise."""
    two = np.stack([1 - np.asarray(scores), scores], axis=1)
    ids = [f"i{number}" for number in range(len(labels))]
    chosen = {"task": "mass", "protocol": "zero-shot", "fraction": 0.0, **told}
    return predictions_frame(ids, list(patients[: len(labels)]), "test", np.asarray(labels), two, **chosen)


def _run(name: str, *predictions: pl.DataFrame, mode: str | None = None) -> RunResults:
    table = pl.concat([PREDICTIONS.empty(), *predictions])
    metrics = METRICS.empty()
    if mode:
        cells = table.select("task", "protocol", "fraction", "seed").unique()
        metrics = pl.concat([metrics, cells.with_columns(dataset=pl.lit("cohort"), mode=pl.lit(mode))], how="diagonal")
    return RunResults(name, "none", STEPS.empty(), metrics, {"cohort": table}, CHOICES.empty(), RETRIEVAL.empty())


def _inputs(*runs: RunResults, datasets: Mapping[str, object] | None = None) -> Inputs:
    return Inputs(Path("results"), dict(datasets or {}), runs, [])


def _compare(*runs: RunResults, seed: int = 0) -> list[dict[str, object]]:
    return comparisons(_inputs(*runs), SECTION, seed).to_dicts()


def test_four_patients_are_compared_as_by_hand() -> None:
    """The first wins all four pairs, the second three: 1 - 3/4. Only the second's shares vary: 1/8, p = 0.4795."""
    (row,) = _compare(
        _run("main", _predictions([0.1, 0.3, 0.2, 0.4])), _run("other", _predictions([0.1, 0.2, 0.3, 0.4]))
    )
    assert (row["run"], row["other"], row["task"], row["protocol"]) == ("main", "other", "mass", "zero-shot")
    assert (row["auroc"], row["auroc_other"], row["difference"]) == (1.0, 0.75, 0.25)
    assert row["p_value"] == pytest.approx(0.4795, abs=5e-5)
    assert row["p_holm"] == row["p_value"]
    assert (row["n"], row["n_positive"], row["num_patients"], row["reason"]) == (4, 2, 4, None)


def test_the_interval_is_of_paired_resamples_of_patients() -> None:
    rng = np.random.default_rng(0)
    labels, patients = np.arange(24) % 2, "aabbccddeeffgghhiijjkkll"
    ours, theirs = rng.random(24) * 0.5 + 0.4 * labels, rng.random(24)
    (row,) = _compare(
        _run("main", _predictions(ours, labels, patients)),
        _run("other", _predictions(theirs, labels, patients)),
        seed=9,
    )
    # Rows come by image id, and so do the draws of whole patients.
    order = np.argsort([f"i{number}" for number in range(24)])
    arrays = [np.asarray(values)[order] for values in (labels, ours, theirs, list(patients))]
    expected = paired_clustered_bootstrap(auroc, *arrays, num_resamples=50, confidence=0.95, seed=9)
    assert (row["difference"], row["ci_low"], row["ci_high"]) == (expected.value, expected.low, expected.high)
    assert row["p_value"] == pytest.approx(delong_test(*arrays).p_value)
    assert row["p_value"] != pytest.approx(delong_test(*arrays[:3], range(24)).p_value)
    assert row["num_patients"] == 12


def test_holm_counts_every_test_of_the_table() -> None:
    rng = np.random.default_rng(1)
    labels = [0, 1] * 4
    runs = []
    for number, name in enumerate(("main", "other", "third")):
        values = [np.clip(rng.random(8) * 0.5 + 0.3 * (2 - number) * np.array(labels), 0, 1) for _ in range(3)]
        shares = [{}, {"protocol": "linear-probe", "fraction": 0.1}, {"protocol": "linear-probe", "fraction": 1.0}]
        tables = [_predictions(scores, labels, **told) for scores, told in zip(values, shares, strict=True)]
        runs.append(_run(name, *tables))
    rows = _compare(*runs)
    assert [(row["protocol"], row["fraction"], row["other"]) for row in rows] == [
        (protocol, share, other)
        for protocol, share in (("zero-shot", 0.0), ("linear-probe", 0.1), ("linear-probe", 1.0))
        for other in ("other", "third")
    ]
    p_values = [row["p_value"] for row in rows]
    assert [row["p_holm"] for row in rows] == holm(p_values).tolist()
    smallest = int(np.argmin(p_values))
    assert rows[smallest]["p_holm"] == pytest.approx(min(1, 6 * p_values[smallest]))


def test_equal_runs_do_not_differ() -> None:
    scores = [0.1, 0.2, 0.3, 0.4]
    (row,) = _compare(_run("main", _predictions(scores)), _run("other", _predictions(scores)))
    assert (row["difference"], row["ci_low"], row["ci_high"], row["p_value"]) == (0.0, 0.0, 0.0, 1.0)


def test_the_order_of_the_rows_does_not_matter() -> None:
    ours, theirs = _predictions([0.1, 0.3, 0.2, 0.4]), _predictions([0.1, 0.2, 0.3, 0.4])
    assert _compare(_run("main", ours), _run("other", theirs.reverse())) == _compare(
        _run("main", ours), _run("other", theirs)
    )


@pytest.mark.parametrize(
    "other",
    [
        _predictions([0.1, 0.2, 0.3], LABELS[:3]),
        _predictions([0.1, 0.2, 0.3, 0.4], (0, 1, 1, 1)),
        _predictions([0.1, 0.2, 0.3, 0.4], patients="aacd"),
        _predictions([0.1, 0.2, 0.3, 0.4]).with_columns(image_id=pl.col("image_id") + "x"),
    ],
    ids=["fewer images", "another label", "another patient", "other images"],
)
def test_runs_that_were_tested_on_different_images_are_refused(other: pl.DataFrame) -> None:
    with pytest.raises(
        ArtifactError, match=r"'main' and 'other' were not tested on the same images of 'cohort'.*rerun"
    ):
        _compare(_run("main", _predictions([0.1, 0.2, 0.3, 0.4])), _run("other", other))


def test_images_counted_several_times_are_compared_as_often() -> None:
    """Compat has a row of an image per row of its labels."""
    twice = [
        pl.concat([table, table[1:2]]) for table in map(_predictions, ([0.1, 0.3, 0.2, 0.4], [0.1, 0.2, 0.3, 0.4]))
    ]
    (row,) = _compare(_run("main", twice[0]), _run("other", twice[1]))
    assert (row["n"], row["n_positive"], row["num_patients"]) == (5, 3, 4)
    assert row["difference"] == pytest.approx(1 - 4 / 6)


def test_validation_images_and_controls_are_not_compared() -> None:
    ours, theirs = _predictions([0.1, 0.3, 0.2, 0.4]), _predictions([0.1, 0.2, 0.3, 0.4])
    validation = [
        table.with_columns(split=pl.lit("validation"), patient_id=pl.lit("held out")) for table in (ours, theirs)
    ]
    shuffled = [table.with_columns(protocol=pl.lit("linear-probe-shuffled")) for table in (ours, theirs)]
    rows = _compare(*(
        _run(name, *tables)
        for name, *tables in zip(("main", "other"), (ours, theirs), validation, shuffled, strict=True)
    ))  # fmt: skip
    assert [(row["protocol"], row["n"]) for row in rows] == [("zero-shot", 4)]


def test_of_several_seeds_the_lowest_is_compared() -> None:
    told = {"protocol": "linear-probe", "fraction": 1.0}
    tables = [
        [_predictions(first, seed=0, **told), _predictions([0.5] * 4, seed=1, **told)]
        for first in ([0.1, 0.3, 0.2, 0.4], [0.1, 0.2, 0.3, 0.4])
    ]
    (row,) = _compare(_run("main", *tables[0]), _run("other", *tables[1]))
    assert (row["seed"], row["difference"]) == (0, 0.25)


def test_a_run_without_the_evaluation_is_not_available_and_says_why() -> None:
    main = _run("main", _predictions([0.1, 0.3, 0.2, 0.4]))
    rows = _compare(main, _run("absent"), _run("other", _predictions([0.1, 0.2, 0.3, 0.4])))
    assert (rows[0]["difference"], rows[0]["p_holm"], rows[0]["auroc"]) == (None, None, 1.0)
    assert rows[0]["reason"] == "absent has no such evaluation"
    assert rows[1]["p_holm"] == rows[1]["p_value"]  # one test alone was made
    row = comparisons_grid(comparisons(_inputs(main, _run("absent")), SECTION, 0), is_compat=False).rows[0]
    assert list(row[5:10]) == ["1.00", "n/a", "n/a: absent has no such evaluation", "n/a", "n/a"]


@pytest.mark.parametrize(
    ("labels", "patients", "reason", "shown"),
    [
        ((0, 0, 0, 0), "abcd", "no test image is positive", ("n/a: no test image is positive", "n/a")),
        ((1, 1, 1, 1), "abcd", "no test image is negative", ("n/a: no test image is negative", "n/a")),
        ((0, 1, 0, 1), "abcb", "a single patient has positive test images", None),
    ],
)
def test_what_cannot_be_tested_says_why(labels: tuple, patients: str, reason: str, shown: tuple | None) -> None:
    runs = [
        _run(name, _predictions(scores, labels, patients))
        for name, scores in (("main", [0.1, 0.3, 0.2, 0.4]), ("other", [0.1, 0.2, 0.3, 0.4]))
    ]
    table = comparisons(_inputs(*runs), SECTION, 0)
    assert table["reason"].to_list() == [reason]
    assert table["p_value"].to_list() == table["p_holm"].to_list() == [None]
    difference, p_value = comparisons_grid(table, is_compat=False).rows[0][7:9]
    if shown:
        assert (difference, p_value) == shown
    else:
        assert difference.startswith("0.25 [")
        assert p_value == f"n/a: {reason}"


def test_perfect_against_perfectly_wrong_has_no_variance() -> None:
    (row,) = _compare(_run("main", _predictions([0, 1, 0, 1])), _run("other", _predictions([1, 0, 1, 0])))
    assert (row["difference"], row["p_value"], row["reason"]) == (1.0, None, "the difference has no variance")


def test_a_task_of_several_classes_is_not_compared(inputs: Inputs, evaluate: EvaluateSection) -> None:
    table = comparisons(inputs, evaluate, 0)
    assert table["task"].unique(maintain_order=True).to_list() == ["mass", "suspicious_calcification"]
    assert len(table) == 2 * 3 * 2  # tasks, zero-shot and two shares of the probe, other runs
    assert table["mode"].unique().to_list() == ["strict"]


def test_a_single_run_has_nothing_to_be_compared_with() -> None:
    table = comparisons(_inputs(_run("main", _predictions([0.1, 0.3, 0.2, 0.4]))), SECTION, 0)
    assert table.is_empty()
    assert comparisons_grid(table, is_compat=False).rows == []


def test_the_grid_shows_the_table() -> None:
    told = {"protocol": "linear-probe", "fraction": 0.1}
    runs = [
        _run(name, _predictions(scores, **told), mode="compat")
        for name, scores in (("main", [0.1, 0.3, 0.2, 0.4]), ("other", [0.1, 0.2, 0.3, 0.4]))
    ]
    table = comparisons(_inputs(*runs), SECTION, 0)
    plain, compat = comparisons_grid(table, is_compat=False), comparisons_grid(table, is_compat=True)
    assert plain.header == [
        "Data set", "Task", "Protocol", "Train", "Other run", "AUROC", "AUROC of other", "Difference", "p", "p (Holm)",
        "Images", "Positive", "Patients",
    ]  # fmt: skip
    row = list(plain.rows[0])
    assert row[:7] == ["cohort", "Mass", "linear-probe", "10 %", "other", "1.00", "0.75"]
    assert row[8:] == ["0.480", "0.480", "4", "2", "4"]
    assert compat.header[4] == "Mode"
    assert list(compat.rows[0]) == [*row[:4], "compat", *row[4:]]
