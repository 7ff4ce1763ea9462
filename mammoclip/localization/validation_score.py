"""What chooses the epoch of a detector: the mean over findings of the average precision at IoU .5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mammoclip.evaluation.checks import IntArray
from mammoclip.localization.boxes import BoxedImages, Boxes, Classes, ImageDetections
from mammoclip.localization.detection_metrics import Detections, Truths, average_precision

IOU = 0.5


def mean_average_precision(part: BoxedImages, found: Sequence[ImageDetections]) -> float:
    """Return the mean of AP@.5 over the classes that have a true box in ``part``, from 0 to 1; NaN without any box.

    Args:
        part: images and their true boxes.
        found: the detections in each of the images, in their order.

    Worked example: the one true box is found.

    >>> part = BoxedImages(["a"], [np.array([[0.0, 0.0, 8.0, 8.0]])], [np.array([0])])
    >>> mean_average_precision(part, [ImageDetections(part.boxes[0], np.array([0.9]), part.labels[0])])
    1.0
    """
    of_truths, true_boxes, true_classes = _joined(part.boxes, part.labels)
    of_found, boxes, classes = _joined([each.boxes for each in found], [each.labels for each in found])
    scores = np.concatenate([np.zeros(0), *(each.scores for each in found)])
    values = [
        average_precision(
            Detections.of(of_found[classes == name], boxes[classes == name], scores[classes == name]),
            Truths.of(of_truths[true_classes == name], true_boxes[true_classes == name], len(part.image_ids)),
            IOU,
        )
        for name in np.unique(true_classes)
    ]
    return float(np.mean(values)) if values else float("nan")


def _joined(boxes: Sequence[Boxes], classes: Sequence[Classes]) -> tuple[IntArray, Boxes, Classes]:
    """Return the number of the image, the box and the class of every box of a list of images."""
    return (
        np.repeat(np.arange(len(classes)), [len(each) for each in classes]),
        np.concatenate([np.zeros((0, 4)), *boxes]),
        np.concatenate([np.zeros(0, np.int64), *classes]),
    )
