"""The picture of a heat map over a mammogram."""

from __future__ import annotations

import numpy as np
import pytest

from mammoclip.localization.overlay import overlay


def test_what_is_cold_stays_grey_and_what_is_hot_is_coloured() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (60, 40), dtype=np.uint8)
    heat = np.zeros((60, 40))
    heat[20:40, 10:30] = 1.0
    picture = overlay(grey, heat)
    assert picture.dtype == np.uint8 and picture.shape == (60, 40, 3)
    cold, hot = np.s_[:16], np.s_[25:35, 15:25]
    assert (picture[cold] == grey[cold][:, :, None]).all()
    blue, red = picture[hot][:, :, 0].astype(int), picture[hot][:, :, 2].astype(int)
    assert (red > blue).all()
    assert np.corrcoef(picture[hot].mean(axis=2).ravel(), grey[hot].ravel())[0, 1] > 0.99  # the tissue is seen below


def test_a_line_surrounds_what_is_half_as_hot_as_the_hottest() -> None:
    grey = np.full((60, 40), 128, np.uint8)
    heat = np.zeros((60, 40))
    heat[20:40, 10:30], heat[2:8, 2:8] = 0.8, 0.3
    picture = overlay(grey, heat)
    white = (picture > 250).all(axis=2)
    rows, columns = np.nonzero(white)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 10, 29)


def test_without_heat_the_image_is_what_it_was() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    assert (overlay(grey, np.zeros((9, 7))) == grey[:, :, None]).all()


def test_images_of_16_bits_are_stretched() -> None:
    grey = np.linspace(500, 4000, 60).astype(np.uint16).reshape(6, 10)
    picture = overlay(grey, np.zeros((6, 10)))
    assert (picture.min(), picture.max()) == (0, 255)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image \(4, 4\) and heat map \(4, 5\) are not of one shape"):
        overlay(np.zeros((4, 4), np.uint8), np.zeros((4, 5)))
