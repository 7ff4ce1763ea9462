from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.data.splits import SplitFractions, assign_splits, find_shared_patients, patient_strata
from mammoclip.datasets import base
from mammoclip.datasets.base import Annotations
from mammoclip.errors import DatasetError

FRACTIONS = SplitFractions(validation=0.25, test=0.2, seed=1)
PATIENTS = [f"patient {number}" for number in range(8000)]

fractions_st = st.builds(SplitFractions, st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
patients_st = st.lists(st.text(max_size=8), min_size=1, max_size=6, unique=True)


def images(patients: list[str], split: str | None = None, fold: int | None = None) -> pl.DataFrame:
    schema = {"patient_id": pl.String, "split": pl.String, "fold": pl.Int32}
    return pl.DataFrame([(patient, split, fold) for patient in patients], schema=schema, orient="row")


def split_of(patients: list[str], given_split: str | None, fractions: SplitFractions = FRACTIONS) -> list[str]:
    splits = dict(assign_splits(images(patients, given_split), fractions).rows())
    return [splits[patient] for patient in patients]


@settings(deadline=None)
@given(patients_st, fractions_st, st.sampled_from(["test", "validation"]))
def test_a_given_test_or_validation_patient_stays_there(
    patients: list[str], fractions: SplitFractions, split: str
) -> None:
    assert set(split_of(patients, split, fractions)) == {split}


@settings(deadline=None)
@given(patients_st, fractions_st)
def test_a_given_training_patient_is_never_tested(patients: list[str], fractions: SplitFractions) -> None:
    assert set(split_of(patients, "train", fractions)) <= {"train", "validation"}


@settings(deadline=None)
@given(st.sampled_from(["train", None]), patients_st)
def test_fractions_of_nothing_and_all(split: str | None, patients: list[str]) -> None:
    assert set(split_of(patients, split, SplitFractions(0, 0, 1))) == {"train"}
    assert set(split_of(patients, split, SplitFractions(1, 0, 1))) == {"validation"}
    assert set(split_of(patients, None, SplitFractions(0.5, 1, 1))) == {"test"}


def test_the_fractions_are_those_of_the_patients() -> None:
    free = split_of(PATIENTS, None)
    assert free.count("test") / 8000 == pytest.approx(0.2, abs=0.02)
    assert free.count("validation") / 8000 == pytest.approx(0.8 * 0.25, abs=0.02)
    assert split_of(PATIENTS, "train").count("validation") / 8000 == pytest.approx(0.25, abs=0.02)
    other = split_of(PATIENTS, None, SplitFractions(0.25, 0.2, 2))
    assert sum(a != b for a, b in zip(free, other, strict=True)) > 2000


def test_adding_patients_or_another_order_moves_no_patient() -> None:
    few = split_of(PATIENTS[:500], None)
    splits = dict(assign_splits(images(PATIENTS[::-1]), FRACTIONS).rows())
    assert [splits[patient] for patient in PATIENTS[:500]] == few


@pytest.mark.parametrize("given_split", ["Test", "training", "val", ""])
def test_a_split_that_is_spelled_otherwise_is_an_error_and_not_training(given_split: str) -> None:
    with pytest.raises(DatasetError, match=f"split {given_split!r}; expected train, validation, test"):
        split_of(["p"], given_split)


def test_fold_0_is_tested_where_there_is_no_split_and_a_split_comes_first() -> None:
    rows = pl.concat([images([f"{n}"], None, n % 4) for n in range(400)])
    splits = dict(assign_splits(rows, FRACTIONS).rows())
    assert {patient for patient, split in splits.items() if split == "test"} == {f"{n}" for n in range(0, 400, 4)}
    assert {splits[f"{n}"] for n in range(400) if n % 4} == {"train", "validation"}
    assert set(assign_splits(images(["p"], "test", 1), FRACTIONS)["split"]) == {"test"}


@pytest.mark.parametrize(("one", "other"), [(("test", None), ("train", None)), (("test", None), (None, None)),
                                            ((None, 0), (None, 1))])  # fmt: skip
def test_a_patient_in_several_splits_is_an_error(one: tuple[str, int], other: tuple[str, int]) -> None:
    rows = pl.concat([images(["p1"], *one), images(["p2"], *one), images(["p2"], *other)])
    with pytest.raises(DatasetError, match="1 patients into several splits, such as 'p2'"):
        assign_splits(rows, FRACTIONS)


# --- stratified -------------------------------------------------------------------------------------------------------


def strata(patients: list[str], every: int) -> pl.DataFrame:
    return pl.DataFrame({"patient_id": patients, "value": [int(n % every == 0) for n in range(len(patients))]})


def test_stratified_splits_have_the_same_share_of_each_value() -> None:
    values = strata(PATIENTS, 40)  # 200 of 8,000 are positive
    splits = assign_splits(images(PATIENTS), FRACTIONS, values).join(values, on="patient_id")
    counts = dict(splits.filter(value=1)["split"].value_counts().rows())
    assert counts == {"test": 40, "validation": 40, "train": 120}
    assert dict(splits.filter(value=0)["split"].value_counts().rows()) == {
        "test": 1560,
        "validation": 1560,
        "train": 4680,
    }


def test_stratified_splits_move_few_patients_when_patients_are_added() -> None:
    values = strata(PATIENTS, 10)
    before = dict(assign_splits(images(PATIENTS[:7000]), FRACTIONS, values).rows())
    after = dict(assign_splits(images(PATIENTS), FRACTIONS, values).rows())
    assert sum(after[patient] != split for patient, split in before.items()) < 0.02 * 7000


def test_patients_of_unknown_value_are_a_stratum_of_their_own() -> None:
    splits = assign_splits(images(PATIENTS), FRACTIONS, strata(PATIENTS[:4000], 4))
    unknown = splits.filter(pl.col("patient_id").is_in(PATIENTS[4000:]))
    assert dict(unknown["split"].value_counts().rows()) == {"test": 800, "validation": 800, "train": 2400}


def test_given_splits_stay_under_stratification() -> None:
    rows = pl.concat([images(PATIENTS[:100], "test"), images(PATIENTS[100:1000], "train")])
    splits = dict(assign_splits(rows, FRACTIONS, strata(PATIENTS, 3)).rows())
    assert {splits[patient] for patient in PATIENTS[:100]} == {"test"}
    assert "test" not in {splits[patient] for patient in PATIENTS[100:1000]}


def test_a_patients_stratum_is_its_largest_value() -> None:
    owners = pl.DataFrame({"image_id": ["a", "b", "c"], "patient_id": ["p", "p", "q"]})
    rows = [("a", "malignancy", 0), ("b", "malignancy", 1), ("c", "malignancy", 0), ("c", "density", 3)]
    said = Annotations(attributes=pl.DataFrame(rows, schema=base.ATTRIBUTES, orient="row"))
    assert sorted(patient_strata(owners, said, "malignancy").rows()) == [("p", 1), ("q", 0)]
    breasts = pl.DataFrame([("q", None, "L", "malignancy", 1)], schema=base.BREAST_ATTRIBUTES, orient="row")
    assert sorted(patient_strata(owners, replace(said, breast_attributes=breasts), "malignancy").rows()) == [
        ("p", 1),
        ("q", 1),
    ]
    with pytest.raises(DatasetError, match="stratify_by is 'cancer', which no image has"):
        patient_strata(owners, said, "cancer")


# --- several data sets ------------------------------------------------------------------------------------------------


def test_patients_that_data_sets_share_are_found_with_their_splits() -> None:
    def table(dataset: str, *rows: tuple[str, str]) -> pl.DataFrame:
        return pl.DataFrame([(dataset, *row) for row in rows], schema=["dataset", "patient_id", "split"], orient="row")

    one = table("a", ("p", "train"), ("p", "train"), ("q", "test"), ("r", "train"))
    other = table("b", ("p", "train"), ("q", "train"), ("s", "test"))
    assert find_shared_patients([one, other]).rows() == [
        ("p", ["a", "b"], ["train"]),
        ("q", ["a", "b"], ["test", "train"]),
    ]
    assert len(find_shared_patients([one])) == 0
