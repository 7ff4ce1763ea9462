from pathlib import Path

import polars as pl
import pytest

from mammoclip.datasets import base
from mammoclip.datasets.phantom import generate_cohort
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.errors import DatasetError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    generate_cohort(root, num_patients=3, seed=5, rows_px=128, columns_px=128, processes=1)
    return root


def test_the_cohorts_patients_are_not_its_studies(root: Path) -> None:
    files = Phantom().files(root)
    listed = files.filter(pl.col("image_id").is_not_null())
    assert len(listed) == 12 and len(files) == 17
    assert not set(listed["patient_id"]) & set(listed["study_id"])
    assert listed["path"].null_count() == 0
    assert set(listed["split"]) <= {"train", "test"}


def test_a_report_is_one_text_of_both_sides(root: Path) -> None:
    reports = Phantom().annotations(root).reports
    assert reports.schema == base.REPORTS
    assert reports.select("laterality", "section").unique().rows() == [(None, "REPORT")]
    assert set(reports["study_id"]) == set(Phantom().files(root)["study_id"].drop_nulls())
    for text in reports["text"]:
        assert "FINDINGS:\n" in text and "IMPRESSION:\n" in text


def test_findings_and_attributes_agree(root: Path) -> None:
    findings, attributes = Phantom().annotations(root).findings, Phantom().annotations(root).attributes
    boxes = set(findings.select("image_id", "finding").rows())
    positive = attributes.filter(pl.col("value") == 1, ~pl.col("attribute").is_in(["density", "birads"]))
    assert set(findings["image_id"]) == set(attributes["image_id"])
    assert boxes == set(positive.select("image_id", "attribute").rows()) != set()
    boxed = findings.filter(pl.col("finding") != "no_finding")
    assert len(boxed) > 0 and (boxed["x_max"] > boxed["x_min"]).all()


@pytest.mark.parametrize("column", ["patient_id", "study_id", "report"])
def test_a_missing_column_is_named_with_its_file(tmp_path: Path, column: str) -> None:
    pl.DataFrame({"patient_id": "p", "study_id": "s", "report": "r"}).drop(column).write_csv(tmp_path / "reports.csv")
    with pytest.raises(DatasetError, match=rf"reports\.csv has no column '{column}'"):
        Phantom().annotations(tmp_path)
