import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pydicom
import pytest
from polars.testing import assert_frame_equal

from mammoclip.artifacts import INDEX, REJECTS, write_table
from mammoclip.data import index as index_module
from mammoclip.data.index import Indexed, index_dataset, list_dataset
from mammoclip.datasets import base
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.errors import DatasetError


class Listing:
    """An adapter that lists what it is given; what is not given comes from the header."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        defaults = {"patient_id": "p", "study_id": "s", "laterality": None, "view": None, "split": None}
        self.frame = pl.DataFrame([{**defaults, **row} for row in rows], schema=base.FILES)

    layout = "anything"

    def files(self, root: Path) -> pl.DataFrame:
        return self.frame


@pytest.fixture
def a_file(cohort: Any, tmp_path: Path) -> Path:
    """A folder with one good mammogram, ``a.dicom``, of the right breast in MLO."""
    row = cohort.index.filter(laterality="R", view="MLO").row(0, named=True)
    shutil.copy(cohort.root / row["path"], tmp_path / "a.dicom")
    return tmp_path


def index(adapter: Any, root: Path, split: str | None = None) -> Indexed:
    indexed = index_dataset(adapter, root, "d", split, 1, root / "work")
    for frame, table in ((indexed.index, INDEX), (indexed.rejects, REJECTS)):
        write_table(frame, table, root / f"{table.name}.parquet")  # both must be what the stage can write
    return indexed


def test_every_file_found_is_a_row_or_a_reject(cohort: Any) -> None:
    found = {path.relative_to(cohort.root).as_posix() for path in (cohort.root / "images").rglob("*") if path.is_file()}
    rows, rejects = cohort.index["path"].to_list(), cohort.indexed.rejects["path"].to_list()
    assert len(rows) + len(rejects) == cohort.indexed.num_found == len(found) == 6 * 4 + 5
    assert set(rows) | set(rejects) == found


def test_broken_files_are_rejected_with_their_reason(cohort: Any) -> None:
    broken = dict(pl.read_csv(cohort.root / "broken_files.csv").select("path", "what").rows())
    found = {broken[path]: reason for path, reason in cohort.indexed.rejects.select("path", "reason").rows()}
    assert found == {
        "truncated": "not_in_tables",
        "constant image": "not_in_tables",
        "not DICOM": "not_dicom",
        "empty": "not_dicom",
        "no pixel data": "no_pixel_data",
    }
    assert set(cohort.indexed.rejects["stage"]) == {"index"}


def test_rows_agree_with_the_data_sets_table(cohort: Any) -> None:
    table = pl.read_csv(cohort.root / "breast-level_annotations.csv")
    joined = cohort.index.join(table, on="image_id", suffix="_table")
    assert len(joined) == len(table) == len(cohort.index)
    for ours, theirs in (
        ("study_id", "study_id_table"),
        ("laterality", "laterality_table"),
        ("view", "view_position"),
        ("rows", "height"),
        ("columns", "width"),
    ):
        assert joined[ours].to_list() == joined[theirs].to_list()
    assert joined["path"].to_list() == [
        f"images/{s}/{i}.dicom" for s, i in joined.select("study_id", "image_id").rows()
    ]
    assert joined["size_bytes"].to_list() == [(cohort.root / path).stat().st_size for path in joined["path"]]
    assert set(cohort.index["laterality_source"]) == set(cohort.index["view_source"]) == {"table"}


def test_the_tables_are_in_a_fixed_order(cohort: Any) -> None:
    assert_frame_equal(cohort.index, cohort.index.sort("study_id", "image_id"))
    assert cohort.indexed.rejects["path"].is_sorted()


def test_the_result_does_not_depend_on_the_number_of_processes(cohort: Any, tmp_path: Path) -> None:
    again = index_dataset(Phantom(), cohort.root, "phantom", None, 2, tmp_path)
    assert_frame_equal(again.index, cohort.index)
    assert_frame_equal(again.rejects, cohort.indexed.rejects)


def test_what_was_read_is_kept_until_a_file_or_its_row_changes(a_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_BATCH", 2)
    for name in ("b", "c"):
        shutil.copy(a_file / "a.dicom", a_file / f"{name}.dicom")
    rows = [{"path": f"{name}.dicom", "image_id": name} for name in "abc"]
    first = index(Listing(*rows), a_file)
    kept = sorted((a_file / "work").iterdir())
    assert len(kept) == 2
    # The same size and time: a header that says something else is not seen, because it is not read again.
    status = (a_file / "a.dicom").stat()
    content = (a_file / "a.dicom").read_bytes()
    (a_file / "a.dicom").write_bytes(bytes(len(content)))
    os.utime(a_file / "a.dicom", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert_frame_equal(index(Listing(*rows), a_file).index, first.index)
    os.utime(a_file / "a.dicom")
    assert index(Listing(*rows), a_file).rejects["reason"].to_list() == ["not_dicom"]
    (a_file / "a.dicom").write_bytes(content)
    renamed = index(Listing(*({**row, "study_id": "other"} for row in rows)), a_file)
    assert set(renamed.index["study_id"]) == {"other"}


def test_a_name_that_is_no_utf_8_is_rejected_and_counted(a_file: Path) -> None:
    (a_file / "images").mkdir()
    (a_file / "images" / "good.dcm").write_bytes((a_file / "a.dicom").read_bytes())
    (Path(os.fsdecode(os.fsencode(a_file / "images") + b"/b\xff.dcm"))).write_bytes((a_file / "a.dicom").read_bytes())
    paths = base.find_images(a_file / "images", a_file)
    assert paths == ["images/b\ufffd.dcm", "images/good.dcm"]
    indexed = index(Listing(*({"path": path, "image_id": Path(path).stem.strip("\ufffd")} for path in paths)), a_file)
    assert indexed.rejects.select("path", "reason").rows() == [("images/b\ufffd.dcm", "unreadable_header")]
    assert indexed.num_found == 2


@pytest.mark.parametrize(
    ("attributes", "flags"),
    [
        ({}, {"magnification": False, "spot_compression": False, "implant_displaced": False, "synthetic_2d": False}),
        ({"BreastImplantPresent": "YES"}, {"implant": True}),
        ({"BreastImplantPresent": "NO"}, {"implant": False}),
        ({}, {"implant": None}),
        ({"ViewPosition": "MCC"}, {"magnification": True}),
        ({"ImageType": ["DERIVED", "PRIMARY", "", "GENERATED_2D"]}, {"synthetic_2d": True}),
    ],
)
def test_flags_of_the_header_are_columns(a_file: Path, attributes: dict[str, Any], flags: dict[str, Any]) -> None:
    dataset = pydicom.dcmread(a_file / "a.dicom")
    dataset.update(attributes)
    dataset.save_as(a_file / "a.dicom")
    row = index(Listing({"path": "a.dicom", "image_id": "a"}), a_file).index.row(0, named=True)
    assert {name: row[name] for name in flags} == flags


def test_the_configured_split_replaces_the_data_sets_own(cohort: Any, tmp_path: Path) -> None:
    assert set(cohort.index["split"]) == {"train", "test"}
    assert set(index_dataset(Phantom(), cohort.root, "phantom", "test", 1, tmp_path).index["split"]) == {"test"}


def test_the_table_names_the_side_before_the_header_does(a_file: Path) -> None:
    file = {"path": "a.dicom", "image_id": "a"}
    row = index(Listing({**file, "laterality": "R", "view": "CC"}), a_file).index.row(0, named=True)
    assert (row["laterality"], row["laterality_source"], row["view"], row["view_source"]) == (
        "R",
        "table",
        "CC",
        "table",
    )
    row = index(Listing(file), a_file).index.row(0, named=True)
    assert (row["laterality"], row["laterality_source"]) == ("R", "ImageLaterality")
    assert (row["view"], row["view_source"]) == ("MLO", "ViewPosition")


def test_a_side_that_is_neither_left_nor_right_is_rejected(a_file: Path) -> None:
    rejects = index(Listing({"path": "a.dicom", "image_id": "a", "laterality": "BOTH"}), a_file).rejects
    assert rejects["reason"].to_list() == ["missing_laterality"]


def test_a_second_file_of_an_image_is_rejected_and_names_the_first(a_file: Path) -> None:
    for name in ("b.dicom", "c.dicom"):
        shutil.copy(a_file / "a.dicom", a_file / name)
    rows = [{"path": f"{name}.dicom", "image_id": "same" if name != "c" else "c"} for name in "abc"]
    indexed = index(Listing(*rows), a_file)
    assert indexed.index["path"].sort().to_list() == ["a.dicom", "c.dicom"]
    assert indexed.rejects.select("path", "reason").rows() == [("b.dicom", "duplicate_image")]
    assert "a.dicom" in indexed.rejects["detail"][0]


def test_a_rejected_file_does_not_make_a_good_one_a_duplicate(a_file: Path) -> None:
    (a_file / "0.dicom").write_text("no image")
    indexed = index(Listing({"path": "0.dicom", "image_id": "x"}, {"path": "a.dicom", "image_id": "x"}), a_file)
    assert indexed.index["path"].to_list() == ["a.dicom"]


@pytest.mark.parametrize("key", ["patient_id", "study_id", "image_id"])
@pytest.mark.parametrize("value", ["../x", "a/b", "a b", "", ".hidden", "x" * 129, "né", "a\n", "a\0b"])
def test_an_identifier_that_a_file_name_may_not_hold_is_rejected(a_file: Path, key: str, value: str) -> None:
    indexed = index(Listing({"path": "a.dicom", "image_id": "a", key: value}), a_file)
    assert len(indexed.index) == 0
    assert indexed.rejects["reason"].to_list() == ["unsafe_id"]
    assert key in indexed.rejects["detail"][0]
    assert len(value) < 2 or value not in indexed.rejects["detail"][0]


@pytest.mark.parametrize("value", ["1.2.840.113619", "a-b_c.d", "x" * 128, "0"])
def test_safe_identifiers_are_kept(a_file: Path, value: str) -> None:
    assert index(Listing({"path": "a.dicom", "image_id": value}), a_file).index["image_id"].to_list() == [value]


@pytest.mark.parametrize("key", ["patient_id", "study_id"])
def test_a_listed_image_without_patient_or_study_is_rejected(a_file: Path, key: str) -> None:
    indexed = index(Listing({"path": "a.dicom", "image_id": "a", key: None}), a_file)
    assert indexed.rejects["reason"].to_list() == ["unsafe_id"]
    assert key in indexed.rejects["detail"][0]


def test_a_listed_image_without_a_file_is_rejected_by_its_id(a_file: Path) -> None:
    indexed = index(Listing({"path": "a.dicom", "image_id": "a"}, {"path": None, "image_id": "gone"}), a_file)
    assert indexed.rejects.select("path", "reason").rows() == [("gone", "missing_file")]
    assert indexed.num_found == 1


def test_a_listed_image_without_id_and_file_is_rejected(a_file: Path) -> None:
    indexed = index(Listing({"path": "a.dicom", "image_id": "a"}, {"path": None, "image_id": None}), a_file)
    assert indexed.rejects.select("path", "reason").rows() == [("an image without image_id", "missing_file")]


def test_a_side_that_the_header_contradicts_is_rejected(a_file: Path) -> None:
    indexed = index(Listing({"path": "a.dicom", "image_id": "a", "laterality": "L"}), a_file)
    assert indexed.rejects["reason"].to_list() == ["laterality_conflict"]
    assert len(indexed.index) == 0


def test_an_image_that_the_tables_describe_twice_in_different_ways_is_rejected_once(a_file: Path) -> None:
    row = {"path": "a.dicom", "image_id": "a"}
    indexed = index(Listing(row, {**row, "patient_id": "another"}), a_file)
    assert indexed.rejects.select("path", "reason").rows() == [("a.dicom", "contradictory_rows")]
    assert len(indexed.index) == 0
    assert len(index(Listing(row, row), a_file).index) == 1


def test_the_folds_of_the_tables_are_kept(a_file: Path) -> None:
    assert index(Listing({"path": "a.dicom", "image_id": "a", "fold": 3}), a_file).index["fold"].to_list() == [3]


# --- the tables alone -------------------------------------------------------------------------------------------------


def test_tables_alone_make_an_index_without_opening_a_file(tmp_path: Path) -> None:
    said = {"laterality": "L", "view": "CC", "rows": 9, "columns": 7, "split": "test"}
    (tmp_path / "a.dicom").write_text("no image, and never read")
    rows = [{"path": path, "image_id": name, **said} for path, name in (("a.dicom", "a"), (None, "gone"))]
    indexed = list_dataset(Listing(*rows, {"path": "stray.dicom", "image_id": None}), tmp_path, "d")
    kept = indexed.index.select("image_id", "laterality", "view", "rows", "columns", "split", "magnification")
    assert kept.rows() == [("a", "L", "CC", 9, 7, "test", False), ("gone", "L", "CC", 9, 7, "test", False)]
    assert len(indexed.rejects) == 0


def test_a_file_whose_side_the_tables_do_not_say_is_opened(a_file: Path) -> None:
    (a_file / "b.dicom").write_text("no image")
    rows = [{"path": f"{name}.dicom", "image_id": name} for name in "ab"]
    indexed = list_dataset(Listing(*rows, {"path": None, "image_id": "gone"}), a_file, "d")
    assert indexed.index.select("image_id", "laterality", "view").rows() == [("a", "R", "MLO")]
    assert indexed.rejects.select("path", "reason").rows() == [("b.dicom", "not_dicom"), ("gone", "missing_laterality")]


def test_tables_without_an_image_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no image is listed for data set 'd'; anything was expected"):
        list_dataset(Listing(), tmp_path, "d")


def test_a_data_set_of_rejects_only_is_an_empty_index(tmp_path: Path) -> None:
    (tmp_path / "a.dicom").write_text("no image")
    indexed = index(Listing({"path": "a.dicom", "image_id": "a"}), tmp_path)
    assert indexed.index.schema == INDEX.schema and len(indexed.index) == 0
    assert len(indexed.rejects) == 1


def test_a_data_set_without_rejects_has_an_empty_table_of_them(a_file: Path) -> None:
    rejects = index(Listing({"path": "a.dicom", "image_id": "a"}), a_file).rejects
    assert rejects.schema == REJECTS.schema and len(rejects) == 0


def test_a_missing_root_names_the_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'d'.*nowhere.*set datasets\.d\.root"):
        index_dataset(Phantom(), tmp_path / "nowhere", "d", None, 1, tmp_path)


def test_no_file_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no image file was found for data set 'd'"):
        index_dataset(Listing(), tmp_path, "d", None, 1, tmp_path)


def test_no_row_or_reject_holds_what_the_headers_call_the_patient(cohort: Any) -> None:
    """The phantom's headers name every patient ``PHANTOM-...`` and ``Phantom^N...``."""
    said = cohort.index.write_csv() + cohort.indexed.rejects.drop("dataset").write_csv()
    assert "PHANTOM-" not in said and "Phantom^" not in said
