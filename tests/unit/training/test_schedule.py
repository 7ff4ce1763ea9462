from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mammoclip.training.schedule import learning_rate_factor

steps = st.integers(0, 10_000)


@given(steps, steps, steps)
def test_linear_warm_up_then_the_square_of_a_quarter_cosine(step: int, total: int, warm: int) -> None:
    assume(step < total and warm < total)
    factor = learning_rate_factor(step, total, warm)
    if step < warm:
        assert factor == step / warm
    else:
        assert factor == pytest.approx(math.cos(math.pi / 2 * (step - warm) / (total - warm)) ** 2, abs=1e-12)


@given(steps, steps, steps)
def test_the_factor_lies_between_0_and_1(step: int, total: int, warm: int) -> None:
    assume(step < total)
    assert 0 <= learning_rate_factor(step, total, warm) <= 1


@given(st.integers(1, 200), st.integers(1, 200))
def test_rises_through_warm_up_to_its_peak_then_falls_to_almost_nothing(warm: int, rest: int) -> None:
    factors = [learning_rate_factor(step, warm + rest, warm) for step in range(warm + rest)]
    assert factors[0] == 0
    assert factors[warm] == 1 == max(factors)
    assert factors[: warm + 1] == sorted(factors[: warm + 1])
    assert factors[warm:] == sorted(factors[warm:], reverse=True)
    assert learning_rate_factor(warm + rest, warm + rest, warm) == pytest.approx(0, abs=1e-12)


def test_half_way_down_the_factor_is_one_half() -> None:
    assert learning_rate_factor(20, 30, 10) == pytest.approx(0.5)


def test_without_warm_up_training_starts_at_the_peak() -> None:
    assert learning_rate_factor(0, 5, 0) == 1


@pytest.mark.parametrize("warm", [4, 9])
def test_a_warm_up_as_long_as_training_only_rises(warm: int) -> None:
    assert [learning_rate_factor(step, 4, warm) for step in range(4)] == [step / warm for step in range(4)]
