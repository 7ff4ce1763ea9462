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
        ("train_images/10006/1459541791.dcm", "10006", "10006", "1459541791", "L", "MLO", None),
        ("train_images/10006/462822612.dcm", "10006", "10006", "462822612", "L", "CC", None),
        ("train_images/10011/220375232.dcm", "10011", "10011", "220375232", "R", "CC", None),
        ("train_images/10011/99.dcm", None, None, None, None, None, None),
        (None, "10011", "10011", "270344397", "R", "MLO", None),
    ]


def test_labels_that_are_empty_are_unknown(root: Path) -> None:
    attributes = Rsna().attributes(root)
    assert attributes.schema == base.ATTRIBUTES
    of = {image: dict(attributes.filter(image_id=image).select("attribute", "value").rows()) for image in (
        "462822612", "220375232", "270344397"
    )}  # fmt: skip
    assert of["462822612"] == {"malignancy": 0, "biopsy": 0, "invasive": 0, "implant": 0}
    assert of["220375232"] == {"malignancy": 1, "biopsy": 1, "invasive": 1, "implant": 1, "birads": 0, "density": 2}
    assert of["270344397"] == {"malignancy": 1, "biopsy": 1, "invasive": 0, "implant": 1, "birads": 2, "density": 0}


def test_it_has_neither_boxes_nor_reports(root: Path) -> None:
    assert len(Rsna().findings(root)) == len(Rsna().reports(root)) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cancer,", "malignant,", "train.csv has no column 'cancer'; found site_id"),
        (",1,1,1,0.0", ",maybe,1,1,0.0", "column 'cancer' should hold whole numbers, found 'maybe'"),
        (",1,1,1,0.0", ",inf,1,1,0.0", "column 'cancer' should hold whole numbers, found 'inf'"),
        (",C,21", ",E,21", "column 'density' should hold whole numbers, found 'E'"),
        ("0.0,1,C", "0.5,1,C", "column 'BIRADS' should hold whole numbers, found '0.5'"),
    ],
)
def test_a_table_that_is_not_as_expected_says_which_column(root: Path, old: str, new: str, message: str) -> None:
    assert old in TABLE
    (root / "train.csv").write_text(TABLE.replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        Rsna().attributes(root)


def test_a_missing_table_or_folder_is_named(root: Path) -> None:
    (root / "train_images").rename(root / "images")
    with pytest.raises(DatasetError, match="train_images is missing"):
        Rsna().files(root)
    (root / "train.csv").unlink()
    with pytest.raises(DatasetError, match=r"train\.csv is missing"):
        Rsna().attributes(root)
