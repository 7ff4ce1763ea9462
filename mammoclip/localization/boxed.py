"""Which images a detector of some findings is trained and tested on, and boxes between PNG, detector and tables.

Boxes are rows of ``x_min, y_min, x_max, y_max``, half-open, x to the right and y down. Those of the table ``findings``
are in pixels of the PNG, those of a detector in pixels of its own size, to which the whole PNG is resized.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import polars as pl

from mammoclip.artifacts import DETECTIONS
from mammoclip.config import Mode
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.checks import FloatArray, IntArray
from mammoclip.evaluation.examples import released_split
from mammoclip.localization.boxes import BoxedImages, ImageDetections, LesionImages

log = logging.getLogger(__name__)

CORNERS = ("x_min", "y_min", "x_max", "y_max")

_SHUFFLE = 5  # stream of random numbers of one seed
_SHARES = (1, 1)  # (height, width) to which boxes are scaled that hold for images of any size
_MOST_NAMES = 3


def boxed_images(
    images: pl.DataFrame,
    findings: pl.DataFrame,
    attributes: pl.DataFrame,
    labels: pl.DataFrame,
    targets: Sequence[str],
    mode: Mode,
    parts: Sequence[str] = ("train", "test"),
) -> pl.DataFrame:
    """Return image_id, patient_id, split, height_px, width_px and label (1 with a box of a target, else 0), by id.

    Strict: images of which is known where each target is: it has a box, or the data set's tables say that it is absent.
    An image that is said to have a target but has no box of it would teach that there is nothing. Targets without a box
    in the whole data set do not count. Compat: images with a box of a target alone, in the released splits, see
    ``released_split``; no image is for validation.

    Args:
        images: table of this name.
        findings: table of this name.
        attributes: table of this name, strict.
        labels: table of this name, compat.
        targets: findings.
        mode: strict or compat.
        parts: splits that need an image; with none, a target without any box is no error either.

    Raises:
        ArtifactError: no target has a box, or a part has no image.
    """
    boxed = findings.filter(pl.col("finding").is_in(list(targets))).select("image_id", "finding").unique()
    boxed = boxed.join(images, on="image_id", how="semi")
    known = sorted(set(boxed["finding"]))
    if parts and not known:
        raise ArtifactError(
            f"no image of the data set has a box of {_named(targets)}; take a data set with boxes (docs/datasets.md), "
            "or other targets under localize"
        )
    if without := sorted({*targets} - {*known}):
        log.info("boxes: the data set has none of %s", _named(without))
    rows = images.select("image_id", "patient_id", "split", "height_px", "width_px")
    if mode == "compat":
        split = released_split().replace("validation", "train")  # also where it is the data set's own
        released = labels.select("image_id", split=split).drop_nulls().unique("image_id")
        rows = rows.drop("split").join(released, on="image_id").join(boxed, on="image_id", how="semi")
        why = "have no box, or are in no part of the released split"
    else:
        stated = attributes.filter(pl.col("attribute").is_in(known), source="table", value=0)
        each = pl.concat([boxed, stated.select("image_id", finding="attribute")]).unique().group_by("image_id").len()
        rows = rows.join(each.filter(pl.col("len") == len(known)), on="image_id", how="semi")
        why = "the tables do not say whether, or not where, they have it"
    left_out = len(images) - len(rows)
    if left_out:
        log.info("boxes of %s: %d of %d images are left out: %s", _named(targets), left_out, len(images), why)
    for part in parts:
        if rows.filter(split=part).is_empty():
            raise ArtifactError(
                f"no {part} image of the data set can be used for boxes of {_named(targets)}: in mode {mode} "
                f"{len(rows)} of {len(images)} images can, all of other parts; correct the splits of the data set, or "
                "take other targets under localize"
            )
    label = pl.col("image_id").is_in(boxed["image_id"].implode()).cast(pl.Int32)
    return rows.select("image_id", "patient_id", "split", "height_px", "width_px", label=label).sort("image_id")


def true_boxes(findings: pl.DataFrame, image_ids: Sequence[str], targets: Sequence[str]) -> BoxedImages:
    """Return the boxes of the targets in each image, in pixels of the PNG; classes are places in ``targets``."""
    places = pl.DataFrame({"image_id": pl.Series(list(image_ids), dtype=pl.String)}).with_row_index("row")
    classes = pl.DataFrame({"finding": pl.Series(list(targets), dtype=pl.String)}).with_row_index("class")
    found = findings.join(places, on="image_id").join(classes, on="finding").sort("row", "class", *CORNERS)
    ends = np.searchsorted(found["row"].to_numpy(), np.arange(1, len(image_ids)))
    boxes, labels = found.select(CORNERS).to_numpy().astype(np.float64), found["class"].to_numpy().astype(np.int64)
    size = len(image_ids)  # of no image, split gives one part nevertheless
    return BoxedImages(list(image_ids), np.split(boxes, ends)[:size], np.split(labels, ends)[:size])


def to_boxed_images(
    rows: pl.DataFrame, findings: pl.DataFrame, targets: Sequence[str], size_px: tuple[int, int]
) -> BoxedImages:
    """Return the images of ``rows``, in their order, with their boxes in pixels of a detector's ``size_px``.

    Args:
        rows: image_id, height_px and width_px of the PNG.
        findings: table of this name.
        targets: findings; their places are the classes.
        size_px: (height, width).
    """
    boxed = true_boxes(findings, rows["image_id"].to_list(), targets)
    scaled = [boxes * scale for boxes, scale in zip(boxed.boxes, _scales(rows, size_px), strict=True)]
    return BoxedImages(boxed.image_ids, scaled, boxed.labels)


def detections_frame(
    found: Sequence[ImageDetections],
    rows: pl.DataFrame,
    targets: Sequence[str],
    size_px: tuple[int, int],
    *,
    target: str,
    protocol: str,
    fraction: float,
    seed: int,
    selected: int | None,
) -> pl.DataFrame:
    """Return rows of the table ``detections``, boxes in pixels of the PNG.

    Args:
        found: in each image of ``rows``, boxes in pixels of the detector.
        rows: image_id, height_px and width_px of the PNG.
        targets: the findings that the classes are.
        size_px: (height, width) of the detector.
        target: what was trained together.
        protocol: as the table has it.
        fraction: share of the training patients.
        seed: of the training.
        selected: epoch, from 0.

    Raises:
        ValueError: there are not as many images as rows.
    """
    scaled = [each.boxes / scale for each, scale in zip(found, _scales(rows, size_px), strict=True)]
    boxes = np.concatenate([np.zeros((0, 4)), *scaled])
    labels = np.concatenate([np.zeros(0, np.int64), *(each.labels for each in found)])
    counts = [len(each.scores) for each in found]
    frame = pl.DataFrame(
        {
            "image_id": np.repeat(np.array(rows["image_id"].to_list(), object), counts).tolist(),
            "finding": [targets[label] for label in labels],
            "score": np.concatenate([np.zeros(0), *(each.scores for each in found)]),
            **dict(zip(CORNERS, boxes.T, strict=True)),
        },
        schema_overrides={"image_id": pl.String, "finding": pl.String},
    )
    of_all = {"protocol": protocol, "target": target, "fraction": fraction, "seed": seed, "selected": selected}
    stated = [pl.lit(value, DETECTIONS.schema[name]).alias(name) for name, value in of_all.items()]
    return frame.with_columns(stated).select(list(DETECTIONS.columns))


def other_patients(patients: Sequence[str], seed: int) -> IntArray:
    """Return for each of N images the place of an image of another patient, (N,), for controls.

    Every image is another's once: a random permutation. Where a patient has more than half of the images there is none
    such, and each image draws one of another patient's by itself. Of a single patient nothing can be had: shape (0,).
    """
    names, owner, counts = np.unique(np.array(patients, np.str_), return_inverse=True, return_counts=True)
    size, largest = len(owner), counts.max(initial=0)
    if len(names) < 2:
        return np.zeros(0, np.int64)
    rng = np.random.default_rng([seed, _SHUFFLE])
    if 2 * largest > size:
        return np.array([rng.choice(np.flatnonzero(owner != own)) for own in owner], np.int64)
    # Patients in a row, each with all images: so many places further on, no patient meets himself.
    order = np.lexsort((rng.random(size), rng.permutation(len(names))[owner]))
    others = np.empty(size, np.int64)
    others[order] = np.roll(order, -largest)
    return others


def tested_images(
    images: pl.DataFrame,
    findings: pl.DataFrame,
    attributes: pl.DataFrame,
    labels: pl.DataFrame,
    names: Sequence[str],
    mode: Mode,
    seed: int,
) -> dict[str, LesionImages]:
    """Return the test images of each of the attributes ``names`` that is a finding with boxes in one of them.

    Each has the images that a detector of this finding alone is tested on, see ``boxed_images``, for the other
    arguments too; ``seed`` draws the boxes of other patients, see ``other_patients``.
    """
    tested = {}
    for name in names:
        rows = boxed_images(images, findings, attributes, labels, (name,), mode, parts=()).filter(split="test")
        having = rows.filter(pl.col("label") == 1)
        if having.is_empty():
            continue
        boxed = to_boxed_images(having, findings, (name,), _SHARES)
        others = other_patients(having["patient_id"].to_list(), seed)
        shuffled = zip(boxed.image_ids, (boxed.boxes[other] for other in others), strict=False)
        tested[name] = LesionImages(rows, dict(zip(boxed.image_ids, boxed.boxes, strict=True)), dict(shuffled))
    return tested


def _scales(rows: pl.DataFrame, size_px: tuple[int, int]) -> FloatArray:
    """Return what takes each corner (N, 4) of boxes from pixels of the PNG to those of ``size_px``."""
    of_png = rows.select("width_px", "height_px").to_numpy().astype(np.float64)
    return np.asarray(np.tile(np.array(size_px[::-1], np.float64) / of_png, 2), np.float64)


def _named(targets: Sequence[str]) -> str:
    shown = ", ".join(targets[:_MOST_NAMES])
    return shown if len(targets) <= _MOST_NAMES else f"{shown} and {len(targets) - _MOST_NAMES} other findings"
