"""The images that a finding was looked for in, and which of them are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mammoclip.config import Mode, findings_of
from mammoclip.localization.boxed import CORNERS, boxed_images
from mammoclip.localization.detection_metrics import Detections, Truths
from mammoclip.paper.inputs import DatasetTables
from mammoclip.paper.overlays import Box

_STREAM = 7  # of random numbers, none of the other samples'


@dataclass(frozen=True)
class ImagesTested:
    """Test images of a finding, by id, their patients, and the true boxes in them.

    ``rows`` has number (from 0), image_id, patient_id and label (whether it has a box of the finding); ``boxes`` has
    image_id and the corners, sorted.
    """

    rows: pl.DataFrame
    boxes: pl.DataFrame

    @property
    def truths(self) -> Truths:
        """The true boxes of all images."""
        placed = self.boxes.join(self.rows, on="image_id", maintain_order="left")
        return Truths.of(placed["number"].to_numpy(), placed.select(CORNERS).to_numpy(), len(self.rows))

    def detections(self, found: pl.DataFrame) -> Detections:
        """Return rows of ``detections`` that are of these images."""
        placed = found.join(self.rows, on="image_id", maintain_order="left")
        return Detections.of(placed["number"].to_numpy(), placed.select(CORNERS).to_numpy(), placed["score"].to_numpy())

    def boxes_of(self, image_id: str) -> list[Box]:
        """Return the true boxes of an image."""
        return self.boxes.filter(image_id=image_id).select(CORNERS).rows()


def find_tested_images(tables: DatasetTables, finding: str, target: str, mode: Mode) -> ImagesTested:
    """Return the images of a finding that a detector of ``target``, which is it or all findings, is tested on."""
    rows = boxed_images(
        tables.images, tables.findings, tables.attributes, tables.labels, findings_of(target), mode, parts=()
    ).filter(split="test")
    boxes = tables.findings.filter(finding=finding).join(rows, on="image_id", how="semi")
    label = pl.col("image_id").is_in(boxes["image_id"].implode())
    return ImagesTested(
        rows.select("image_id", "patient_id", label=label).with_row_index("number"),
        boxes.select("image_id", *CORNERS).sort(pl.all()),
    )


def one_of_each_patient(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return one image of every patient, drawn at random, in random order; the same for rows in any order."""
    ordered = rows.sort("image_id")
    shuffled = ordered[np.random.default_rng([seed, _STREAM]).permutation(len(ordered))]
    return shuffled.unique("patient_id", keep="first", maintain_order=True)


def sample_with_and_without(tested: ImagesTested, num_with: int, num_without: int, seed: int) -> pl.DataFrame:
    """Return at most so many images with a box, then without, drawn at random, of as many patients."""
    having, lacking = (
        one_of_each_patient(tested.rows.filter(pl.col("label") == label), seed) for label in (True, False)
    )
    having = having.head(num_with)
    return pl.concat(
        [having, lacking.join(having, on="patient_id", how="anti", maintain_order="left").head(num_without)]
    )


def choose_along_ranking(rows: pl.DataFrame, by: str, num_images: int, seed: int) -> list[tuple[str, str]]:
    """Return (place in the ranking, image_id) of images evenly along it, from the best to the worst.

    Ranked is one image of every patient, drawn at random. Places are best, median and worst, or the rank.

    Args:
        rows: image_id, patient_id and the column ``by``, higher meaning better.
        by: its name.
        num_images: at most, at least 1.
        seed: of the draw.
    """
    ranked = one_of_each_patient(rows, seed).sort(by, "image_id", descending=[True, False])["image_id"].to_list()
    last = len(ranked) - 1
    places = sorted({round(place) for place in np.linspace(0, last, min(num_images, len(ranked)))})
    names = {round(last / 2): "median", last: "worst", 0: "best"}
    return [(names.get(place, f"rank {place + 1}"), ranked[place]) for place in places]
