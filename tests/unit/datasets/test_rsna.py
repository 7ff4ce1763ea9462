from pathlib import Path

import pytest

from mammoclip.datasets import base
from mammoclip.datasets.rsna import Rsna
from mammoclip.errors import DatasetError

COLUMNS = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
    "difficult_negative_case"
)
TABLE = f"""{COLUMNS}
2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False
2,10006,1459541791,L,MLO,61.0,0,0,0,,0,,29,False
1,10011,220375232,R,CC,55.0,1,1,1,0.0,1,C,21,True
1,10011,270344397,R,MLO,,1,1,0,2.0,1,A,21,False
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text(TABLE)
    for name in ("10006/462822612", "10006/1459541791", "10011/220375232", "10011/99"):
        path = tmp_path / "train_images" / f"{name}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_files_are_those_of_the_table_and_strangers_and_missing_ones_are_told(root: Path) -> None:
    files = Rsna().files(root)
    assert files.schema == base.FILES
    assert files.rows() == [
        ("train_images/10006/1459541791.dcm", "10006", "10006", "1459541791", "L", "MLO", *[None] * 4),
        ("train_images/10006/462822612.dcm", "10006", "10006", "462822612", "L", "CC", *[None] * 4),
        ("train_images/10011/220375232.dcm", "10011", "10011", "220375232", "R", "CC", *[None] * 4),
        ("train_images/10011/99.dcm", *[None] * 9),
        (None, "10011", "10011", "270344397", "R", "MLO", *[None] * 4),
    ]


def test_labels_that_are_empty_are_unknown(root: Path) -> None:
    attributes = Rsna().annotations(root).attributes
    assert attributes.schema == base.ATTRIBUTES
    of = {image: dict(attributes.filter(image_id=image).select("attribute", "value").rows()) for image in (
        "462822612", "220375232", "270344397"
    )}  # fmt: skip
    assert of["462822612"] == {"malignancy": 0, "biopsy": 0, "invasive": 0, "implant": 0, "age": 61}
    assert of["220375232"] == {
        "malignancy": 1, "biopsy": 1, "invasive": 1, "implant": 1, "birads": 0, "density": 2, "age": 55
    }  # fmt: skip
    assert of["270344397"] == {"malignancy": 1, "biopsy": 1, "invasive": 0, "implant": 1, "birads": 2, "density": 0}


def test_it_has_neither_boxes_nor_reports(root: Path) -> None:
    assert len(Rsna().annotations(root).findings) == len(Rsna().annotations(root).reports) == 0


def test_folds_are_kept_as_given(root: Path) -> None:
    lines = TABLE.splitlines()
    table = [f"{lines[0]},fold", *(f"{line},{fold}" for line, fold in zip(lines[1:], "0011", strict=True))]
    (root / "train.csv").write_text("\n".join(table))
    folds = Rsna().files(root).drop_nulls("image_id").select("image_id", "fold").rows()
    assert dict(folds) == {"462822612": 0, "1459541791": 0, "220375232": 1, "270344397": 1}


@pytest.mark.parametrize(
    ("old", "new", "label", "message"),
    [
        (",1,1,1,0.0", ",maybe,1,1,0.0", "malignancy", "cancer should be a whole number from 0 to 1"),
        (",1,1,1,0.0", ",inf,1,1,0.0", "malignancy", "cancer should be a whole number from 0 to 1"),
        (",1,1,1,0.0", ",2,1,1,0.0", "malignancy", "cancer should be a whole number from 0 to 1"),
        (",C,21", ",E,21", "density", "density should be A to D or 0 to 3"),
        ("0.0,1,C", "0.5,1,C", "birads", "BIRADS should be a whole number from 0 to 6"),
    ],
)
def test_a_cell_that_cannot_be_read_is_no_label_and_told(
    root: Path, old: str, new: str, label: str, message: str
) -> None:
    assert old in TABLE
    (root / "train.csv").write_text(TABLE.replace(old, new, 1))
    said = Rsna().annotations(root)
    assert said.rejected.rows() == [("train.csv row 4", "wrong_type", f"{message}; the cell is left out")]
    assert label not in said.attributes.filter(image_id="220375232")["attribute"]
    assert len(said.attributes.filter(image_id="220375232")) == 6


def test_a_missing_table_or_column_is_named(root: Path) -> None:
    (root / "train.csv").write_text(TABLE.replace("cancer,", "malignant,"))
    with pytest.raises(DatasetError, match=r"train\.csv has no column 'cancer'; found site_id"):
        Rsna().annotations(root)
    (root / "train.csv").unlink()
    for read in (Rsna().files, Rsna().annotations):
        with pytest.raises(DatasetError, match=r"train\.csv is missing"):
            read(root)
