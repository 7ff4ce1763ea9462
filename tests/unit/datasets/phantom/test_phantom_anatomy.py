import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.datasets.phantom.anatomy import (
    BreastShape,
    BreastSize,
    Density,
    View,
    draw_shape,
    noise_field,
    render_tissue,
)

ROWS, COLUMNS = 400, 256


def a_shape(view: View = "CC", seed: int = 0) -> BreastShape:
    return draw_shape(np.random.default_rng(seed), BreastSize(0.7, 0.32), view, ROWS, COLUMNS)


@given(
    view=st.sampled_from(["CC", "MLO"]),
    seed=st.integers(0, 1000),
    depth=st.floats(0.01, 1),
    offset=st.floats(-1, 1),
)
def test_outline_at_a_point_follows_from_its_breast_coordinates(
    view: View, seed: int, depth: float, offset: float
) -> None:
    shape = a_shape(view, seed)
    column, row = shape.to_pixel(depth, offset)
    value = shape.outline(np.float32([column]), np.float32([row]))[0]
    assert value == pytest.approx(depth**shape.exponent + offset**2, abs=2e-3)


def test_positive_offsets_lie_above_the_nipple_line() -> None:
    shape = a_shape("MLO")
    assert shape.to_pixel(0.5, 0.4)[1] < shape.to_pixel(0.5, 0)[1] < shape.to_pixel(0.5, -0.4)[1]


def test_the_pectoral_edge_joins_the_top_edge_and_the_chest_wall() -> None:
    shape = a_shape("MLO")
    assert shape.distance_to_pectoral_px(shape.pectoral_columns_px, 0) == pytest.approx(0, abs=1e-6)
    assert shape.distance_to_pectoral_px(0, shape.pectoral_rows_px) == pytest.approx(0, abs=1e-6)
    assert shape.distance_to_pectoral_px(0, 0) < 0 < shape.distance_to_pectoral_px(200, 300)
    assert a_shape("CC").distance_to_pectoral_px(0, 0) == np.inf


def test_noise_has_about_zero_mean_and_unit_spread() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([noise_field(rng, 64, 40, (8, 16)) for _ in range(200)])
    assert fields.shape[1:] == (64, 40)
    assert abs(fields.mean()) < 0.05
    assert fields.std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_tissue_is_dark_in_air_and_touches_the_chest_wall(view: View) -> None:
    tissue, mask = render_tissue(np.random.default_rng(1), a_shape(view), "B", ROWS, COLUMNS)
    assert tissue.shape == mask.shape == (ROWS, COLUMNS)
    assert tissue.dtype == mask.dtype == np.float32
    assert 0 <= mask.min() <= mask.max() <= 1
    assert tissue[:, -5:].max() == 0
    assert mask[ROWS // 2, 0] == 1


def test_denser_breasts_are_brighter_on_average() -> None:
    densities: tuple[Density, ...] = ("A", "B", "C", "D")
    means = []
    for density in densities:
        brightness = []
        for seed in range(12):
            tissue, mask = render_tissue(np.random.default_rng(seed), a_shape("CC", seed), density, ROWS, COLUMNS)
            brightness.append(tissue[mask > 0.99].mean())
        means.append(np.mean(brightness))
    assert np.diff(means).min() > 0.015


def test_the_muscle_is_brighter_than_fat_on_average() -> None:
    shape = a_shape("MLO")
    differences = []
    for seed in range(12):
        tissue, _ = render_tissue(np.random.default_rng(seed), shape, "A", ROWS, COLUMNS)
        muscle = tissue[: int(shape.pectoral_rows_px * 0.3), : int(shape.pectoral_columns_px * 0.3)]
        fat = tissue[int(shape.chest_row_px) : int(shape.chest_row_px) + 40, 20:80]
        differences.append(muscle.mean() - fat.mean())
    assert np.mean(differences) > 0.05
