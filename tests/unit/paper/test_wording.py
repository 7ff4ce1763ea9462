import pytest

from mammoclip.config import Control, Protocol
from mammoclip.paper.wording import (
    PROTOCOLS,
    ROLES,
    TESTED_PROTOCOLS,
    class_names,
    explain_missing,
    finding_name,
    format_count,
    format_interval,
    format_number,
    format_p_value,
    format_percent,
    format_training,
    task_name,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.871, "0.87"), (1.0, "1.00"), (-0.034, "\u22120.03"), (-0.001, "0.00"), (float("nan"), "n/a"), (None, "n/a")],
)
def test_numbers_have_two_digits_a_true_minus_and_no_minus_zero(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_an_undefined_value_is_never_shown_as_a_number() -> None:
    assert format_interval(float("nan"), 0.1, 0.2) == "n/a"
    assert format_interval(None, 0.1, 0.2) == "n/a"
    assert format_count(None) == "n/a"


def test_a_value_without_interval_says_so() -> None:
    assert format_interval(0.5, float("nan"), float("nan")) == "0.50 [n/a]"
    assert format_interval(0.5, None, 0.7) == "0.50 [n/a]"


def test_a_value_is_shown_with_its_interval() -> None:
    assert format_interval(0.871, 0.824, 0.916) == "0.87 [0.82, 0.92]"


def test_confidence_keeps_its_digits() -> None:
    assert [format_percent(level) for level in (0.9, 0.95, 0.995)] == ["90 %", "95 %", "99.5 %"]


def test_findings_read_as_words() -> None:
    assert finding_name("suspicious_calcification") == "suspicious calcification"


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "1.000"), (0.0123, "0.012"), (0.0005, "0.001"), (0.00049, "< 0.001"), (None, "n/a")]
)
def test_a_p_value_is_never_shown_as_zero(p: float | None, text: str) -> None:
    assert format_p_value(p) == text


def test_what_is_missing_says_why_where_it_is_known() -> None:
    assert explain_missing("no image is positive") == "n/a: no image is positive"
    assert explain_missing(None) == "n/a"


def test_the_share_of_training_patients_is_in_per_cent_and_none_without_training() -> None:
    assert [format_training(fraction) for fraction in (0.0, 0.01, 0.1, 1.0)] == ["-", "1 %", "10 %", "100 %"]


def test_a_task_of_any_name_has_a_title() -> None:
    titles = [task_name(task) for task in ("mass", "density", "birads", "focal_asymmetry", "my_own_task")]
    assert titles == ["Mass", "Breast density", "BI-RADS", "Focal asymmetry", "My own task"]


def test_classes_are_named_by_their_values_and_densities_by_letters() -> None:
    assert class_names("density", range(4)) == ["A", "B", "C", "D"]
    assert class_names("density", [1, 3, 9]) == ["B", "D", "9"]
    assert class_names("birads", [4, 5, 6]) == ["4", "5", "6"]


def test_every_control_and_protocol_of_the_configuration_has_a_name() -> None:
    assert set(ROLES) == set(Control.__args__)
    assert set(TESTED_PROTOCOLS) == set(Protocol.__args__) <= set(PROTOCOLS)
