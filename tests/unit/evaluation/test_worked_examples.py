from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from mammoclip.evaluation import (
    aggregation,
    calibration,
    delong,
    metrics,
    resampling,
    statistics,
    subgroups,
)


@pytest.mark.parametrize(
    ("module", "num_examples"),
    [(metrics, 14), (calibration, 6), (statistics, 3), (delong, 3), (aggregation, 3), (subgroups, 7), (resampling, 0)],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else "",
)
def test_the_worked_examples_of_the_documentation_hold(module: ModuleType, num_examples: int) -> None:
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted >= num_examples
