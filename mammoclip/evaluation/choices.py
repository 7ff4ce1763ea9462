"""What validation images choose for a classifier: temperature and threshold; test images never do.

N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mammoclip.errors import MammoClipError
from mammoclip.evaluation.calibration import TemperatureScaling, fit_temperature, to_logits
from mammoclip.evaluation.examples import Floats, Labels
from mammoclip.evaluation.metrics import roc_curve

NO_VALIDATION = "there are no validation images"


@dataclass(frozen=True)
class Choices:
    """A temperature, and for two classes a threshold on the probability of the positive one; or why there is none."""

    temperature: float | None
    why_no_temperature: str | None
    threshold: float | None
    why_no_threshold: str | None

    def calibrate(self, probabilities: Floats) -> Floats | None:
        """Return probabilities (N x K) at the temperature, or None if there is none."""
        if self.temperature is None:
            return None
        return TemperatureScaling(self.temperature).probabilities(to_logits(probabilities))


def choose(labels: Labels, probabilities: Floats) -> Choices:
    """Choose on validation images, labels (N,) and probabilities (N x K).

    The temperature has the highest likelihood; the threshold the highest balanced accuracy (Youden's index), the
    highest of equally good ones.
    """
    temperature, threshold = None, None
    why_no_temperature, why_no_threshold = None, None
    if not labels.size:
        return Choices(None, NO_VALIDATION, None, NO_VALIDATION)
    try:
        temperature = fit_temperature(labels, to_logits(probabilities)).temperature
    except MammoClipError as error:
        why_no_temperature = str(error)
    if probabilities.shape[1] != 2:
        why_no_threshold = "more than two classes"
    elif len(set(labels.tolist())) < 2:
        why_no_threshold = "the validation images have one class only"
    else:
        fpr, tpr, thresholds = roc_curve(labels, probabilities[:, 1])
        threshold = float(min(thresholds[int(np.argmax(tpr - fpr))], 1.0))
    return Choices(temperature, why_no_temperature, threshold, why_no_threshold)
