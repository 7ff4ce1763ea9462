import pytest

from mammoclip.config import Control, Task
from mammoclip.paper.wording import (
    HEADLINE_METRICS,
    METRICS,
    ROLES,
    TASKS,
    finding_name,
    format_interval,
    format_number,
    format_percent,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.871, "0.87"), (1.0, "1.00"), (-0.034, "\u22120.03"), (-0.001, "0.00"), (float("nan"), "n/a")],
)
def test_numbers_have_two_digits_a_true_minus_and_no_minus_zero(value: float, text: str) -> None:
    assert format_number(value) == text


def test_an_undefined_value_is_never_shown_as_a_number() -> None:
    assert format_interval(float("nan"), 0.1, 0.2) == "n/a"


def test_a_value_without_interval_says_so() -> None:
    assert format_interval(0.5, float("nan"), float("nan")) == "0.50 [n/a]"


def test_a_value_is_shown_with_its_interval() -> None:
    assert format_interval(0.871, 0.824, 0.916) == "0.87 [0.82, 0.92]"


def test_confidence_keeps_its_digits() -> None:
    assert [format_percent(level) for level in (0.9, 0.95, 0.995)] == ["90 %", "95 %", "99.5 %"]


def test_findings_read_as_words() -> None:
    assert finding_name("suspicious_calcification") == "suspicious calcification"


def test_every_task_control_and_metric_of_the_configuration_has_a_name() -> None:
    assert set(TASKS) == set(HEADLINE_METRICS) == set(Task.__args__)
    assert set(ROLES) == set(Control.__args__)
    assert {metric for metrics in HEADLINE_METRICS.values() for metric in metrics} <= set(METRICS)
