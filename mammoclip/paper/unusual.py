"""The most unusual breast crops of a data set: how they are found, and their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.data.reader import ShardReader, eight_bits
from mammoclip.errors import ArtifactError
from mammoclip.paper.crops import SIDES
from mammoclip.paper.rendering import data_uri
from mammoclip.paper.wording import format_number

Floats = npt.NDArray[np.float64]

NUM_UNUSUAL = 10
MIN_PER_VIEW = 20
"""A view with fewer images is compared with all images: its own median and spread would say little."""
FLAGS: Mapping[str, str] = {
    "magnification": "magnification",
    "spot_compression": "spot compression",
    "implant": "implant",
    "implant_displaced": "implant displaced",
    "synthetic_2d": "synthetic 2D",
}
"""Columns of the index that say what is special about an image, in words."""

_ALL = "all images"
_MEASURES = ("crop ratio", "height to width")
_PICTURE_PX = (300, 400)  # a picture fits into this width and height
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class UnusualCrop:
    """A crop and why it is unusual: its ``measure`` has ``value``; the median of ``compared_with`` is ``median``.

    ``z`` is the robust z-score of the logarithm of the value; sizes are (height, width) in stored pixels; ``flags``
    are what the index says of the image that may explain it.
    """

    image_id: str
    laterality: str
    view: str
    measure: str
    value: float
    median: float
    compared_with: str
    z: float
    crop_px: tuple[int, int]
    image_px: tuple[int, int]
    flags: Sequence[str]

    @property
    def title(self) -> str:
        """Side and view, as a radiologist abbreviates them."""
        return f"{self.laterality} {self.view}"

    @property
    def reason(self) -> str:
        """Why the crop is unusual, in words."""
        values = f"{format_measure(self.value)}, median of {self.compared_with} {format_measure(self.median)}"
        return f"{self.measure} {values}"

    @property
    def distance(self) -> str:
        """The robust z-score, as it is shown."""
        return format_number(self.z, 1)

    @property
    def ratio(self) -> float:
        """Area of the crop over area of the image."""
        return self.crop_px[0] * self.crop_px[1] / (self.image_px[0] * self.image_px[1])

    @property
    def description(self) -> str:
        """The picture in words, for those who do not see it."""
        return f"Mammogram crop, {SIDES.get(self.laterality, self.laterality)} breast, {self.view} view; {self.reason}"


def most_unusual(images: pl.DataFrame, number: int = NUM_UNUSUAL) -> list[UnusualCrop]:
    """Return the crops whose share of the image, or whose shape, differs most from that of the others.

    Both are compared as logarithms, by robust z-scores, within the view where that has 20 images, else over all. The
    larger of the two decides; equally unusual crops come in the order of ``image_id``, whatever the order of the rows.

    Args:
        images: rows of the ``manifest``, each with its columns of the ``index``.
        number: crops to return; all when there are fewer.

    Raises:
        ArtifactError: a crop is empty.
    """
    images = images.sort("image_id")
    sizes = Counter(images["view"])
    compared = np.array([view if sizes[view] >= MIN_PER_VIEW else _ALL for view in images["view"]], np.str_)
    values = np.stack([crop_ratios(images), _heights_to_widths(images)])
    z, medians = np.zeros_like(values), np.zeros_like(values)
    for group in np.unique(compared):
        members = compared == group
        others = np.ones_like(members) if group == _ALL else members
        for measure in range(len(_MEASURES)):
            z[measure, members] = robust_z(np.log(values[measure, others]))[members[others]]
            medians[measure, members] = np.median(values[measure, others])
    # Rounded, so that equally unusual ones are equal and not told apart by the last bit of a logarithm.
    scores = np.abs(z).round(6)
    decisive = np.argmax(scores, axis=0)
    chosen = np.argsort(-scores.max(axis=0), kind="stable")[:number]  # stable: ties stay in the order of image_id
    return [
        _describe(
            images.row(place, named=True),
            measure=_MEASURES[decisive[place]],
            value=float(values[decisive[place], place]),
            median=float(medians[decisive[place], place]),
            compared_with=str(compared[place]),
            z=float(z[decisive[place], place]),
        )
        for place in chosen.tolist()
    ]


def crop_ratios(images: pl.DataFrame) -> Floats:
    """Return the area of each crop over the area of its image, for rows as ``most_unusual`` takes them.

    Raises:
        ArtifactError: a crop is empty.
    """
    heights, widths = _crop_sizes(images)
    rows, columns = (images[name].to_numpy().astype(np.float64) for name in ("rows", "columns"))
    return np.asarray(heights * widths / (rows * columns), np.float64)


def robust_z(values: Floats) -> Floats:
    """Return (value - median) / (1.4826 MAD), which are standard deviations if the values are normally distributed.

    Where more than half of the values are equal, the MAD is 0; the mean absolute deviation takes its place (with the
    factor 1.2533). If all are equal, none is unusual: zeros.
    """
    deviations = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(deviations)) or 1.2533 * np.mean(np.abs(deviations))
    return np.asarray(deviations / spread if spread else np.zeros_like(deviations), np.float64)


def format_measure(value: float) -> str:
    """Return a ratio with two digits; one that would be rounded to nothing is said to be small.

    >>> format_measure(0.1234), format_measure(0.0004)
    ('0.12', 'below 0.01')
    """
    return "below 0.01" if value < 0.005 else format_number(value)


def read_pictures(crops: Sequence[UnusualCrop], manifest: pl.DataFrame, folder: Path) -> dict[str, str]:
    """Return the picture of each crop by ``image_id``, a JPEG in a data URI, from the shards in ``folder``.

    A picture has the proportions that the crop had before it was fitted into its PNG; padding is left out.

    Raises:
        ArtifactError: a shard does not hold the image.
    """
    wanted = manifest.filter(pl.col("image_id").is_in([crop.image_id for crop in crops]))
    reader = ShardReader(wanted, folder)
    try:
        return {row["image_id"]: _picture(eight_bits(reader.read(row["image_id"])), row) for row in wanted.to_dicts()}
    finally:
        reader.close()


def _heights_to_widths(images: pl.DataFrame) -> Floats:
    heights, widths = _crop_sizes(images)
    return np.asarray(heights / widths, np.float64)


def _crop_sizes(images: pl.DataFrame) -> tuple[Floats, Floats]:
    """Return heights and widths of the crops in stored pixels."""
    empty = images.filter((pl.col("crop_bottom") <= pl.col("crop_top")) | (pl.col("crop_right") <= pl.col("crop_left")))
    if len(empty):
        raise ArtifactError(f"the crop of image {empty['image_id'][0]!r} is empty; rerun the shard stage")
    top, bottom, left, right = (
        images[f"crop_{side}"].to_numpy().astype(np.float64) for side in ("top", "bottom", "left", "right")
    )
    return bottom - top, right - left


def _describe(row: Mapping[str, Any], **reason: Any) -> UnusualCrop:
    return UnusualCrop(
        image_id=row["image_id"],
        laterality=row["laterality"],
        view=row["view"],
        **reason,
        crop_px=_crop_px(row),
        image_px=(row["rows"], row["columns"]),
        flags=[name for flag, name in FLAGS.items() if row[flag]],
    )


def _crop_px(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["crop_bottom"] - row["crop_top"], row["crop_right"] - row["crop_left"]


def _picture(image: npt.NDArray[np.uint8], row: Mapping[str, Any]) -> str:
    height, width = _crop_px(row)
    inner = (max(1, round(height * row["scale_y"])), max(1, round(width * row["scale_x"])))
    top, left = row["pad_top"], row["pad_left"]
    scale = min(_PICTURE_PX[0] / width, _PICTURE_PX[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    crop = image[top : top + inner[0], left : left + inner[1]]
    resized = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data_uri(encoded.tobytes(), "image/jpeg")
