from pathlib import Path

import polars as pl
import pytest

from mammoclip.datasets import base
from mammoclip.datasets.cmmd import Cmmd
from mammoclip.errors import DatasetError

ROWS = [
    ("D1-0001", "R", "44", "2", "calcification", "Benign", None),
    ("D1-0002", "L", "40", "2", "both", "Malignant", None),
    ("D1-0002", "R", "40", "2", "mass", "Benign", None),
    ("D2-0001", "L", "old", "4", "mass", "Malignant", "Luminal A"),
    ("D2-0002", "B", "61", "2", "mass", "Benign", None),
]
COLUMNS = ["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"]


def write_table(root: Path, rows: list[tuple[str | None, ...]], columns: list[str] = COLUMNS) -> None:
    """Write the table as an Excel file, as it is published."""
    import xlsxwriter

    book = xlsxwriter.Workbook(root / "CMMD_clinicaldata_revision.xlsx")
    sheet = book.add_worksheet()
    for number, row in enumerate([columns, *rows]):
        sheet.write_row(number, 0, [int(cell) if cell and cell.isdigit() else cell for cell in row])
    book.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_table(tmp_path, ROWS)
    for name in ("D1-0001/07-18-2010-NA-NA-1/1.000000-NA-2/1-1.dcm", "D1-0001/07-18-2010-NA-NA-1/1.000000-NA-2/1-2.dcm",
                 "D1-0002/a/b/1-1.dcm", "D1-0002/c/d/1-1.dcm"):  # fmt: skip
        path = tmp_path / "CMMD" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "CMMD" / "LICENSE").touch()
    return tmp_path


def test_folders_make_the_ids_and_headers_say_side_and_view(root: Path) -> None:
    files = Cmmd().files(root)
    assert files.schema == base.FILES
    assert files.select("patient_id", "study_id", "image_id").rows() == [
        ("D1-0001", "D1-0001-1", "D1-0001-1-1-1"),
        ("D1-0001", "D1-0001-1", "D1-0001-1-1-2"),
        ("D1-0002", "D1-0002-1", "D1-0002-1-1-1"),
        ("D1-0002", "D1-0002-2", "D1-0002-2-1-1"),
    ]
    assert files["laterality"].null_count() == len(files) == files["path"].n_unique() == 4


def test_labels_are_those_of_a_breast(root: Path) -> None:
    said = Cmmd().annotations(root)
    assert said.breast_attributes.schema == base.BREAST_ATTRIBUTES
    found: dict[tuple[str, str], dict[str, int]] = {}
    for patient, study, side, name, value in said.breast_attributes.rows():
        assert study is None
        found.setdefault((patient, side), {})[name] = value
    assert found == {
        ("D1-0001", "R"): {"malignancy": 0, "age": 44, "calcification": 1},
        ("D1-0002", "L"): {"malignancy": 1, "age": 40, "mass": 1, "calcification": 1},
        ("D1-0002", "R"): {"malignancy": 0, "age": 40, "mass": 1},
        ("D2-0001", "L"): {"malignancy": 1, "mass": 1},
    }
    assert said.rejected.select("path", "reason").rows() == [
        ("CMMD_clinicaldata_revision.xlsx row 5", "wrong_type"),
        ("CMMD_clinicaldata_revision.xlsx row 6", "wrong_type"),
    ]


def test_another_abnormality_is_told_and_the_rest_of_its_row_stays(root: Path) -> None:
    write_table(root, [("D1-0001", "R", "44", "2", "distortion", "Benign", None)])
    said = Cmmd().annotations(root)
    assert said.rejected.select("path", "reason").rows() == [("CMMD_clinicaldata_revision.xlsx row 2", "wrong_type")]
    assert set(said.breast_attributes["attribute"]) == {"malignancy", "age"}


def test_a_table_that_is_missing_or_no_excel_file_or_lacks_a_column_is_named(root: Path) -> None:
    write_table(root, [row[1:] for row in ROWS], COLUMNS[1:])
    with pytest.raises(DatasetError, match=r"revision\.xlsx has no column 'ID1'; found LeftRight"):
        Cmmd().annotations(root)
    (root / "CMMD_clinicaldata_revision.xlsx").write_text("no archive")
    with pytest.raises(DatasetError, match=r"revision\.xlsx is not a readable \.xlsx file"):
        Cmmd().annotations(root)
    (root / "CMMD_clinicaldata_revision.xlsx").unlink()
    with pytest.raises(DatasetError, match=r"revision\.xlsx is missing"):
        Cmmd().annotations(root)


def test_a_root_without_images_has_no_file(tmp_path: Path) -> None:
    assert Cmmd().files(tmp_path).schema == base.FILES
    assert pl.DataFrame(schema=base.FILES).equals(Cmmd().files(tmp_path))
