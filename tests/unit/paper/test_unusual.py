"""Which crops are unusual, why, and how they are shown."""

from __future__ import annotations

import base64
import hashlib
import math
import statistics
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from mammoclip.artifacts import INDEX, MANIFEST
from mammoclip.dicom.geometry import CropBox, pad, stretch
from mammoclip.errors import ArtifactError
from mammoclip.paper.unusual import UnusualCrop, crop_ratios, most_unusual, read_pictures, robust_z

ROWS, COLUMNS = 3000, 2000


def _images(*crops: tuple[str, str, int, int], **flags: bool) -> pl.DataFrame:
    """Rows (image_id, view, height, width of the crop) as manifest and index have them together."""
    rows = [
        {
            "image_id": image_id,
            "laterality": "L",
            "view": view,
            "rows": ROWS,
            "columns": COLUMNS,
            "crop_top": 7,
            "crop_bottom": 7 + height,
            "crop_left": 11,
            "crop_right": 11 + width,
            "magnification": False,
            "spot_compression": False,
            "implant": None,
            "implant_displaced": False,
            "synthetic_2d": False,
            **flags,
        }
        for image_id, view, height, width in crops
    ]
    columns = {**INDEX.schema, **MANIFEST.schema}
    return pl.DataFrame(rows, schema={name: columns[name] for name in rows[0]})


def _ordinary(view: str, number: int, height: int = 2000, width: int = 1000, seed: int = 0) -> list[tuple]:
    rng = np.random.default_rng([seed, number])
    jitter = rng.integers(-60, 60, (number, 2)).tolist()
    return [(f"{view}-{i:03d}", view, height + h, width + w) for i, (h, w) in enumerate(jitter)]


def _expected(images: pl.DataFrame) -> list[tuple[str, str, float, float, str, float]]:
    """The definition, image by image, in plain Python."""

    def z(value: float, values: list[float]) -> float:
        logs = [math.log(other) for other in values]
        middle = statistics.median(logs)
        return (math.log(value) - middle) / (1.4826 * statistics.median(abs(other - middle) for other in logs))

    rows = images.to_dicts()
    for row in rows:
        height, width = row["crop_bottom"] - row["crop_top"], row["crop_right"] - row["crop_left"]
        row["crop ratio"] = height * width / (row["rows"] * row["columns"])
        row["height to width"] = height / width
    found = []
    for row in rows:
        same_view = [other for other in rows if other["view"] == row["view"]]
        enough = len(same_view) >= 20
        others = same_view if enough else rows
        candidates = []
        for measure in ("crop ratio", "height to width"):
            values = [other[measure] for other in others]
            candidates.append(
                (row["image_id"], measure, row[measure], statistics.median(values),
                 row["view"] if enough else "all images", z(row[measure], values))
            )  # fmt: skip
        found.append(max(candidates, key=lambda candidate: abs(candidate[-1])))
    return sorted(found, key=lambda crop: (-abs(crop[-1]), crop[0]))[:10]


def _seen(crops: list[UnusualCrop]) -> list[tuple[str, str, float, float, str, float]]:
    return [(crop.image_id, crop.measure, crop.value, crop.median, crop.compared_with, crop.z) for crop in crops]


def test_a_planted_crop_is_found_first_with_the_reason() -> None:
    crops = most_unusual(_images(*_ordinary("CC", 40), ("small", "CC", 850, 420)))
    assert crops[0].image_id == "small"
    assert crops[0].reason == "crop ratio 0.06, median of CC 0.33"
    assert crops[0].description == "Mammogram crop, left breast, CC view; crop ratio 0.06, median of CC 0.33"
    assert crops[0].z < -10
    assert crops[0].ratio == 850 * 420 / (ROWS * COLUMNS)
    assert all(abs(crop.z) < 4 for crop in crops[1:])


def test_a_crop_of_ordinary_area_and_unusual_shape_is_found_by_its_shape() -> None:
    crops = most_unusual(_images(*_ordinary("CC", 40), ("flat", "CC", 1000, 2000)))
    assert crops[0].image_id == "flat"
    assert crops[0].reason.startswith("height to width 0.50, median of CC ")
    assert crops[0].median == pytest.approx(2.0, abs=0.05)


def test_scores_are_those_of_the_definition() -> None:
    images = _images(
        *_ordinary("CC", 30), *_ordinary("MLO", 20, 2600, 1100), *_ordinary("ML", 19, 2300, 900), ("xccl", "XCCL", 9, 8)
    )
    for seen, expected in zip(_seen(most_unusual(images)), _expected(images), strict=True):
        assert seen == pytest.approx(expected)


def test_a_view_of_20_images_is_compared_with_itself_and_one_of_19_with_all() -> None:
    images = _images(*_ordinary("CC", 20), *_ordinary("ML", 19, 2300, 900))
    compared = {crop.view: crop.compared_with for crop in most_unusual(images, 39)}
    assert compared == {"CC": "CC", "ML": "all images"}


def test_a_crop_that_is_ordinary_in_another_view_is_unusual_in_its_own() -> None:
    images = _images(*_ordinary("CC", 30), *_ordinary("MLO", 30, 2700, 1400), ("as-mlo", "CC", 2700, 1400))
    assert most_unusual(images)[0].image_id == "as-mlo"


def test_ten_are_shown_and_all_of_a_small_data_set() -> None:
    assert len(most_unusual(_images(*_ordinary("CC", 40)))) == 10
    assert len(most_unusual(_images(*_ordinary("CC", 4)))) == 4


def test_the_order_of_the_rows_does_not_matter() -> None:
    images = _images(*_ordinary("CC", 25), *_ordinary("MLO", 7), ("far", "CC", 100, 50))
    assert most_unusual(images.sample(fraction=1.0, shuffle=True, seed=3)) == most_unusual(images)


def test_equally_unusual_crops_come_in_the_order_of_their_ids() -> None:
    twins = [(name, "CC", 500, 250) for name in ("z-twin", "a-twin", "m-twin")]
    crops = most_unusual(_images(*twins, *_ordinary("CC", 30)))
    assert [crop.image_id for crop in crops[:3]] == ["a-twin", "m-twin", "z-twin"]


def test_one_that_differs_among_equals_is_found_though_their_spread_is_zero() -> None:
    equals = [(f"equal-{i:02d}", "CC", 2000, 1000) for i in range(30)]
    crops = most_unusual(_images(*equals, ("other", "CC", 2100, 1000)))
    assert crops[0].image_id == "other"
    assert math.isfinite(crops[0].z)
    assert crops[0].z > 3.5
    assert [crop.z for crop in crops[1:]] == [0.0] * 9


def test_among_equals_none_is_unusual() -> None:
    crops = most_unusual(_images(*((f"equal-{i:02d}", "CC", 2000, 1000) for i in reversed(range(30)))))
    assert [(crop.image_id, crop.z) for crop in crops] == [(f"equal-{i:02d}", 0.0) for i in range(10)]


def test_a_single_image_is_its_own_median() -> None:
    (crop,) = most_unusual(_images(("only", "CC", 2000, 1000)))
    assert (crop.reason, crop.distance) == ("crop ratio 0.33, median of all images 0.33", "0.0")


def test_without_images_none_is_unusual() -> None:
    assert most_unusual(_images(("only", "CC", 2000, 1000)).clear()) == []


def test_a_ratio_near_zero_is_not_called_zero() -> None:
    crops = most_unusual(_images(*_ordinary("CC", 30), ("speck", "CC", 20, 10)))
    assert crops[0].reason.startswith("crop ratio below 0.01, median of CC 0.3")


def test_what_may_explain_a_crop_is_said() -> None:
    (crop,) = most_unusual(_images(("only", "CC", 2000, 1000), spot_compression=True, synthetic_2d=True))
    assert crop.flags == ["spot compression", "synthetic 2D"]
    (crop,) = most_unusual(_images(("only", "CC", 2000, 1000)))
    assert crop.flags == []


def test_sizes_are_in_stored_pixels() -> None:
    (crop,) = most_unusual(_images(("only", "CC", 2000, 1000)))
    assert (crop.crop_px, crop.image_px) == ((2000, 1000), (ROWS, COLUMNS))


def test_crop_ratios_are_areas_over_areas() -> None:
    images = _images(("half", "CC", 3000, 1000), ("whole", "CC", 3000, 2000), ("dot", "CC", 1, 1))
    assert crop_ratios(images).tolist() == [0.5, 1.0, 1 / 6_000_000]


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-3, 5)])
def test_an_empty_crop_is_an_error_that_names_the_image(height: int, width: int) -> None:
    images = _images(("good", "CC", 5, 5), ("empty", "CC", height, width))
    with pytest.raises(ArtifactError, match="the crop of image 'empty' is empty; rerun the shard stage"):
        most_unusual(images)


def test_robust_z_of_a_normal_sample_is_nearly_its_z() -> None:
    sample = np.random.default_rng(1).normal(5.0, 3.0, 20_000)
    assert np.abs(robust_z(sample) - (sample - 5.0) / 3.0).max() < 0.2


@pytest.mark.parametrize("fit", [stretch, pad])
@pytest.mark.parametrize(("height", "width"), [(1200, 300), (300, 1200)])
def test_a_picture_has_the_proportions_of_the_crop_and_no_padding(
    fit: object, height: int, width: int, tmp_path: Path
) -> None:
    crop = np.full((height, width), 90, np.uint8)
    crop[: height // 2, : width // 2] = 250
    image, placement = fit(crop, CropBox(10, 10 + height, 20, 20 + width), (416, 256))
    pictures = _read_pictures(image, placement, tmp_path)
    picture = cv2.imdecode(np.frombuffer(_jpeg(pictures["an-image"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == ((400, 100) if height > width else (75, 300))
    # Four quarters of the crop, up to JPEG; black padding would show in the outer ones.
    rows, columns = (side // 2 for side in picture.shape)
    inner = [picture[:rows, :columns], picture[:rows, columns:], picture[rows:, :columns], picture[rows:, columns:]]
    assert [round(float(np.median(quarter))) for quarter in inner] == pytest.approx([250, 90, 90, 90], abs=2)
    assert picture.min() > 60


def test_a_crop_one_pixel_wide_has_a_picture(tmp_path: Path) -> None:
    image, placement = pad(np.full((3000, 1), 200, np.uint8), CropBox(0, 3000, 5, 6), (416, 256))
    picture = cv2.imdecode(
        np.frombuffer(_jpeg(_read_pictures(image, placement, tmp_path)["an-image"]), np.uint8), cv2.IMREAD_GRAYSCALE
    )
    assert picture.shape == (400, 1)


def test_a_shard_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    image, placement = stretch(np.full((30, 10), 200, np.uint8), CropBox(0, 30, 0, 10), (41, 25))
    _read_pictures(image, placement, tmp_path)
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(ArtifactError, match="rerun the shard stage"):
        read_pictures([_crop("an-image")], pl.read_parquet(tmp_path / "manifest.parquet"), tmp_path)


def test_only_the_pictures_asked_for_are_read(tmp_path: Path) -> None:
    image, placement = stretch(np.full((30, 10), 200, np.uint8), CropBox(0, 30, 0, 10), (41, 25))
    _read_pictures(image, placement, tmp_path)
    manifest = pl.read_parquet(tmp_path / "manifest.parquet")
    lost = manifest.with_columns(image_id=pl.lit("lost"), shard=pl.lit("nowhere.tar"))
    assert list(read_pictures([_crop("an-image")], pl.concat([manifest, lost]), tmp_path)) == ["an-image"]
    assert read_pictures([], manifest, tmp_path) == {}


def _crop(image_id: str) -> UnusualCrop:
    return replace(most_unusual(_images(("only", "CC", 20, 10)))[0], image_id=image_id)


def _jpeg(uri: str) -> bytes:
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return base64.b64decode(body)


def _read_pictures(image: np.ndarray, placement: object, folder: Path) -> dict[str, str]:
    """Write a "shard" of one PNG and its manifest, and read its picture."""
    png = cv2.imencode(".png", image)[1].tobytes()
    (folder / "00000.tar").write_bytes(b"xxx" + png)
    box = placement.crop
    row = (
        *("an-image", "00000.tar", 3, len(png), *image.shape, box.top, box.bottom, box.left, box.right),
        *(placement.scale_x, placement.scale_y, placement.pad_left, placement.pad_top),
        *("strict", "strict", "stretch", 8, hashlib.sha256(png).hexdigest()),
    )
    manifest = pl.DataFrame([row], schema=MANIFEST.schema, orient="row")
    manifest.write_parquet(folder / "manifest.parquet")
    return read_pictures([_crop("an-image")], manifest, folder)
