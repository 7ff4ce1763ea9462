"""Learning-rate schedule of the paper: linear warm-up from 0, then the square of a quarter cosine."""

from __future__ import annotations

import math


def learning_rate_factor(step: int, num_steps: int, warmup_steps: int) -> float:
    """Return the factor in [0, 1] of the peak learning rate at ``step`` (0-based).

    step / warmup while step < warmup, then cos^2(pi/2 * (step - warmup) / (num_steps - warmup)).

    >>> [round(learning_rate_factor(step, 6, 2), 3) for step in range(6)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup_steps:
        return step / warmup_steps
    return math.cos(math.pi / 2 * (step - warmup_steps) / max(1, num_steps - warmup_steps)) ** 2
