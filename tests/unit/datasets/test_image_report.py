from pathlib import Path

import polars as pl
import pytest

from mammoclip.datasets import base
from mammoclip.datasets.image_report import ImageReport
from mammoclip.errors import DatasetError

TABLE = """patient_id,image_id,laterality,view,FINDINGS,IMPRESSION,age
p1,p1lc,L,CC,No mass.,BI-RADS 1.,50
p1,p1lm,l,mlo,No mass.,BI-RADS 1.,50
p1,p1rc,R,CC,"A mass, 1.5 cm.",,50
p2,p2lc,,,,,61
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "reports.csv").write_text(TABLE)
    for name in ("p1lc.dcm", "p1lm.dicom", "deep/er/p1rc.dcm", "p2lc"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    return tmp_path


def test_a_file_belongs_to_the_row_whose_image_id_is_its_stem(root: Path) -> None:
    files = ImageReport().files(root)
    assert files.schema == base.FILES
    assert files.rows() == [
        ("images/deep/er/p1rc.dcm", "p1", "p1", "p1rc", "R", "CC", *[None] * 4),
        ("images/p1lc.dcm", "p1", "p1", "p1lc", "L", "CC", *[None] * 4),
        ("images/p1lm.dicom", "p1", "p1", "p1lm", "L", "MLO", *[None] * 4),
        ("images/p2lc", "p2", "p2", "p2lc", *[None] * 6),
    ]


def test_uids_as_file_names_keep_their_dots(root: Path) -> None:
    uid = "1.2.840.113619.2.66"
    (root / "reports.csv").write_text(TABLE.replace("p2lc", uid))
    (root / "images" / "p2lc").rename(root / "images" / f"{uid}.dcm")
    assert ImageReport().files(root).filter(image_id=uid)["path"].to_list() == [f"images/{uid}.dcm"]


def test_study_and_split_columns_are_used_where_there_are_any(root: Path) -> None:
    lines = TABLE.splitlines()
    lines = [lines[0] + ",study_id,split"] + [f"{line},s{i},{'test' if i else ''}" for i, line in enumerate(lines[1:])]
    (root / "reports.csv").write_text("\n".join(lines))
    files = ImageReport().files(root).sort("image_id")
    assert files.select("image_id", "study_id", "split").rows() == [
        ("p1lc", "s0", None),
        ("p1lm", "s1", "test"),
        ("p1rc", "s2", "test"),
        ("p2lc", "s3", "test"),
    ]
    assert set(ImageReport().annotations(root).reports["study_id"]) == {"s0", "s1", "s2", "s3"}


def test_unlisted_files_have_no_ids_and_missing_files_no_path(root: Path) -> None:
    (root / "images" / "p2lc").rename(root / "images" / "stray.dcm")
    files = ImageReport().files(root)
    assert files.filter(pl.col("image_id").is_null()).rows() == [("images/stray.dcm", *[None] * 9)]
    assert files.filter(pl.col("path").is_null())["image_id"].to_list() == ["p2lc"]
    assert len(files) == 5


def test_two_files_of_one_image_are_both_listed(root: Path) -> None:
    (root / "images" / "p1lc.dicom").touch()
    found = ImageReport().files(root).filter(image_id="p1lc")["path"].to_list()
    assert found == ["images/p1lc.dcm", "images/p1lc.dicom"]


def test_an_images_folder_without_a_file_lists_only_missing_ones(root: Path) -> None:
    for path in [path for path in (root / "images").rglob("*") if path.is_file()]:
        path.unlink()
    files = ImageReport().files(root)
    assert len(files) == 4 and files["path"].null_count() == 4


def test_reports_are_sections_of_a_side_once_each(root: Path) -> None:
    reports = ImageReport().annotations(root).reports
    assert reports.schema == base.REPORTS
    assert sorted(reports.rows(), key=str) == sorted(
        [
            ("p1", "p1", "L", "FINDINGS", "No mass.", "reports.csv row 2"),
            ("p1", "p1", "L", "IMPRESSION", "BI-RADS 1.", "reports.csv row 2"),
            ("p1", "p1", "R", "FINDINGS", "A mass, 1.5 cm.", "reports.csv row 4"),
            ("p1", "p1", "R", "IMPRESSION", None, "reports.csv row 4"),
            ("p2", "p2", None, "FINDINGS", None, "reports.csv row 5"),
            ("p2", "p2", None, "IMPRESSION", None, "reports.csv row 5"),
        ],
        key=str,
    )


def test_there_are_no_boxes_or_labels(root: Path) -> None:
    assert ImageReport().annotations(root).findings.schema == base.FINDINGS
    assert ImageReport().annotations(root).attributes.schema == base.ATTRIBUTES
    assert len(ImageReport().annotations(root).findings) == len(ImageReport().annotations(root).attributes) == 0


def test_a_missing_table_is_named(root: Path) -> None:
    (root / "reports.csv").unlink()
    for read in (ImageReport().files, ImageReport().annotations):
        with pytest.raises(DatasetError, match=rf"{root}/reports\.csv is missing"):
            read(root)


@pytest.mark.parametrize("column", ["patient_id", "image_id", "laterality", "view", "FINDINGS", "IMPRESSION"])
def test_a_missing_column_is_named_with_its_file(root: Path, column: str) -> None:
    pl.read_csv(root / "reports.csv", infer_schema=False).drop(column).write_csv(root / "reports.csv")
    for read in (ImageReport().files, ImageReport().annotations):
        with pytest.raises(DatasetError, match=rf"reports\.csv has no column '{column}'; found "):
            read(root)


def test_without_an_images_folder_every_listed_image_is_missing(tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text(TABLE)
    files = ImageReport().files(tmp_path)
    assert files["path"].null_count() == len(files) == 4
