from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.config import AdapterName
from mammoclip.datasets import ADAPTERS, Adapter
from mammoclip.datasets.base import find_images, is_safe_id


def test_every_adapter_of_the_configuration_exists() -> None:
    assert set(ADAPTERS) == set(AdapterName.__args__)  # type: ignore[attr-defined]


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


def test_a_missing_folder_holds_no_image(tmp_path: Path) -> None:
    assert find_images(tmp_path / "images", tmp_path) == []


@pytest.mark.parametrize("adapter", ADAPTERS.values())
def test_every_adapter_says_what_it_reads_and_under_which_licence(adapter: type[Adapter]) -> None:
    source = adapter.source
    assert source.title and source.kind and source.licence and source.images and adapter.layout
    assert source.weights_may_be_released == (source.title[:5] != "EMBED")


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
