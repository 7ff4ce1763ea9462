"""Images with their boxes: true ones, found ones, and those that heat maps are held against.

Boxes are rows of ``x_min, y_min, x_max, y_max``, x to the right and y down, measured at the edges of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Boxes = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """What was found in one image, by falling score: boxes (N x 4), scores (N) in [0, 1], classes (N) from 0."""

    boxes: Boxes
    scores: npt.NDArray[np.float64]
    labels: Classes


@dataclass(frozen=True)
class BoxedImages:
    """Images of one split: ids, and of each its true boxes (N x 4) and their classes (N) from 0; N may be 0."""

    image_ids: Sequence[str]
    boxes: Sequence[Boxes]
    labels: Sequence[Classes]

    @property
    def with_boxes(self) -> BoxedImages:
        """Those with a box."""
        kept = [row for row, boxes in enumerate(self.boxes) if len(boxes)]
        ids, boxes, labels = self.image_ids, self.boxes, self.labels
        return BoxedImages([ids[row] for row in kept], [boxes[row] for row in kept], [labels[row] for row in kept])


@dataclass(frozen=True)
class LesionImages:
    """The test images of an attribute that is a finding with boxes.

    ``rows`` has image_id, height_px and width_px. Boxes (N, 4) are in shares of an image's sides, by image; images
    without any are not among ``true_boxes``. ``other_boxes`` are those of another patient's image, for the control.
    """

    rows: pl.DataFrame
    true_boxes: Mapping[str, Boxes]
    other_boxes: Mapping[str, Boxes]
