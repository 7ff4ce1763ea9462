from pathlib import Path

import pytest

from mammoclip.datasets import base
from mammoclip.datasets.csaw_cc import CsawCc
from mammoclip.errors import DatasetError

TABLE = """anon_patientid,exam_year,x_case,x_cancer_laterality,x_type,x_lymphnode_met,rad_timing,rad_r1,rad_r2,\
rad_recall,imagelaterality,viewposition,libra_percentdensity,x_age,anon_filename
1,2012,1,Left,1.0,0.0,2.0,0,0,0,Left,CC,12.3,54,00001_2012_L_CC_1.dcm
1,2014,1,Left,1.0,0.0,1.0,1,1,1,Left,CC,12.3,56,00001_2014_L_CC_1.dcm
1,2014,1,Left,1.0,0.0,1.0,1,1,1,Right,MLO,12.3,56,00001_2014_R_MLO_1.dcm
2,2010,0,,,,,0,0,0,Right,CC,30.1,47,00002_2010_R_CC_1.dcm
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "CSAW-CC_breast_cancer_screening_data.csv").write_text(TABLE)
    for name in ("part1/00001_2014_L_CC_1", "00002_2010_R_CC_1", "part2/stray"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.dcm").touch()
    return tmp_path


def test_files_anywhere_below_the_root_join_the_table_by_name(root: Path) -> None:
    files = CsawCc().files(root)
    assert files.schema == base.FILES
    assert files.select(list(base.FILES)[:6]).rows() == [
        ("00002_2010_R_CC_1.dcm", "2", "2-2010", "00002_2010_R_CC_1", "R", "CC"),
        ("part1/00001_2014_L_CC_1.dcm", "1", "1-2014", "00001_2014_L_CC_1", "L", "CC"),
        ("part2/stray.dcm", *[None] * 5),
        (None, "1", "1-2012", "00001_2012_L_CC_1", "L", "CC"),
        (None, "1", "1-2014", "00001_2014_R_MLO_1", "R", "MLO"),
    ]


def test_a_row_without_a_file_name_is_not_forgotten(root: Path) -> None:
    (root / "CSAW-CC_breast_cancer_screening_data.csv").write_text(TABLE.replace("00001_2012_L_CC_1.dcm", ""))
    files = CsawCc().files(root)
    assert files.filter(study_id="1-2012").select("path", "image_id").rows() == [(None, None)]


def test_malignancy_is_of_the_breast_and_exam_in_which_the_cancer_was_found(root: Path) -> None:
    said = CsawCc().annotations(root)
    assert said.attributes.schema == base.ATTRIBUTES
    assert dict(said.attributes.filter(attribute="malignancy").select("image_id", "value").rows()) == {
        "00001_2014_L_CC_1": 1,
        "00002_2010_R_CC_1": 0,
    }
    assert said.attributes.filter(attribute="age")["value"].to_list() == [54, 56, 56, 47]
    assert len(said.rejected) == 0


def test_a_cell_that_cannot_be_read_is_no_label_and_told(root: Path) -> None:
    (root / "CSAW-CC_breast_cancer_screening_data.csv").write_text(TABLE.replace("2,2010,0,", "2,2010,no,"))
    said = CsawCc().annotations(root)
    assert said.rejected["reason"].to_list() == ["wrong_type"]
    assert said.attributes.filter(attribute="malignancy")["image_id"].to_list() == ["00001_2014_L_CC_1"]


def test_a_missing_column_or_table_is_named(root: Path) -> None:
    (root / "CSAW-CC_breast_cancer_screening_data.csv").write_text(TABLE.replace("rad_timing", "timing"))
    with pytest.raises(DatasetError, match=r"screening_data\.csv has no column 'rad_timing'"):
        CsawCc().files(root)
    (root / "CSAW-CC_breast_cancer_screening_data.csv").unlink()
    with pytest.raises(DatasetError, match=r"screening_data\.csv is missing"):
        CsawCc().annotations(root)
