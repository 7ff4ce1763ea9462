import polars as pl

from mammoclip.paper.shared_patients import SharedPatients, count_shared_patients


def _breasts(dataset: str, **splits: str) -> pl.DataFrame:
    """Two breasts of each patient."""
    rows = [(dataset, patient, side, split) for patient, split in splits.items() for side in "LR"]
    return pl.DataFrame(rows, schema=["dataset", "patient_id", "laterality", "split"], orient="row")


def test_each_pair_of_data_sets_counts_patients_once_and_those_in_different_splits() -> None:
    breasts = {
        "first": _breasts("first", p="train", q="train", r="test"),
        "second": _breasts("second", p="train", q="test", s="test"),
        "third": _breasts("third", r="train", t="train"),
    }
    assert count_shared_patients(breasts) == [
        SharedPatients("first", "second", num_patients=2, num_leaking=1),
        SharedPatients("first", "third", num_patients=1, num_leaking=1),
    ]


def test_one_data_set_or_none_shares_nothing() -> None:
    assert count_shared_patients({"first": _breasts("first", p="train")}) == []
    assert count_shared_patients({}) == []
