from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.config import AdapterName
from mammoclip.datasets import ADAPTERS
from mammoclip.datasets.base import find_images, is_safe_id, read_csv
from mammoclip.errors import DatasetError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_adapter_of_the_configuration_exists() -> None:
    assert set(ADAPTERS) == set(AdapterName.__args__)  # type: ignore[attr-defined]


def test_every_column_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "id,n,list\n007,1.50,\"['a', 'b']\"\n8,,\n")
    assert read_csv(path, ["id"]).rows() == [("007", "1.50", "['a', 'b']"), ("8", None, None)]


@pytest.mark.parametrize(
    "content",
    ["id,text\n1,é\n", "\ufeffid,text\n1,é\n", "id,text\r\n1,é\r\n", "id,text\n\n1,é\n\n\n", 'id,text\n"1","é"'],
)
def test_spellings_of_the_same_csv(tmp_path: Path, content: str) -> None:
    assert read_csv(write(tmp_path / "t.csv", content), ["id", "text"]).rows() == [("1", "é")]


def test_a_field_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'id,text\n1,"FINDINGS: none, ""benign"".\nIMPRESSION: 1"\n')
    assert read_csv(path, ["text"])["text"].to_list() == ['FINDINGS: none, "benign".\nIMPRESSION: 1']


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=rf"{tmp_path}/t\.csv is missing"):
        read_csv(tmp_path / "t.csv", [])


def test_a_missing_column_is_named_with_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "id,Text\n1,x\n")
    with pytest.raises(DatasetError, match=r"t\.csv has no column 'text'; found id, Text"):
        read_csv(path, ["id", "text"])


@pytest.mark.parametrize("content", ["", "a,b\n1,2,3\n", "a,b\n\xe9,2\n".encode("latin-1"), 'a,b\n"1,2\n'])
def test_a_file_that_is_no_csv_is_named(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(DatasetError, match=r"t\.csv is not a readable CSV .* save it as comma-separated UTF-8"):
        read_csv(write(tmp_path / "t.csv", content), ["a"])


def test_images_are_the_files_below_the_folder_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("images/b/2.dicom", "images/b/1.dicom", "images/a.dicom", "images/c/d/e.dcm", "other/x.dicom"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "images" / "empty").mkdir()
    assert find_images(tmp_path / "images", tmp_path) == [
        "images/a.dicom",
        "images/b/1.dicom",
        "images/b/2.dicom",
        "images/c/d/e.dcm",
    ]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"{tmp_path}/images is missing"):
        find_images(tmp_path / "images", tmp_path)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=12), st.text("aA0._-/\\ ", max_size=12)))
def test_a_safe_id_is_a_plain_file_name(identifier: str) -> None:
    plain = (
        0 < len(identifier) <= 128
        and all(character.isascii() and (character.isalnum() or character in "._-") for character in identifier)
        and identifier[0] not in "._-"
    )
    assert is_safe_id(identifier) == plain


def test_no_id_is_not_safe() -> None:
    assert not is_safe_id(None)
    assert not is_safe_id("a" * 129)
    assert is_safe_id("a" * 128)
