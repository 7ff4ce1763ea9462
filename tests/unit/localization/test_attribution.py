"""Heat maps of test images: what Mammo-FActOR and what comes for free show of a finding."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mammoclip.config import FACTOR, FactorSection
from mammoclip.evaluation.features import FeatureRecipe
from mammoclip.localization.attribution import FoundByHeat, attribute_images, heats_of_image
from mammoclip.localization.attribution_metrics import mean_over_images
from mammoclip.localization.boxes import LesionImages
from mammoclip.localization.factor import MammoFactor
from mammoclip.localization.factor_training import AttributedImages, FactorJob, MapStore, train_factor
from mammoclip.localization.protocols import BASELINES, CENTRE_PRIOR, GRAD_CAM, RANDOM, SHUFFLED, SIMILARITY_MAP
from mammoclip.models import LoadedModel
from tests.unit.evaluation.fine_tune_process import make_model

CELLS, HEIGHT_PX, WIDTH_PX = (4, 7), 80, 140  # a cell is 20 x 20 pixels
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 320, 64, 60
TESTED = range(NUM_TRAIN + NUM_VALIDATION, NUM_TRAIN + NUM_VALIDATION + NUM_TEST)
SECTION = FactorSection(attributes=["mass"], box_threshold=0.5)


def toy_maps(number: int, num_channels: int = 5) -> tuple[np.ndarray, tuple[int, int]]:
    """Every channel has a spot in the right columns; with a mass, the second has it in the left ones instead."""
    rng = np.random.default_rng(number)
    maps = 0.2 * rng.random((num_channels, *CELLS))
    rows, columns = rng.integers(CELLS[0], size=num_channels), rng.integers(4, 7, num_channels)
    mass = (int(rng.integers(CELLS[0])), int(rng.integers(2)))
    if number % 2:
        rows[1], columns[1] = mass
    maps[np.arange(num_channels), rows, columns] += 1.0
    return maps.astype(np.float16), mass


def toy_store(work: Path, numbers: range, num_channels: int = 5) -> MapStore:
    ids = [str(number) for number in numbers]
    images = pl.DataFrame({"image_id": ids, "png_sha256": [hashlib.sha256(i.encode()).hexdigest() for i in ids]})
    store = MapStore(work, images, FeatureRecipe("a" * 64, (32, 32), "fp32", False), chunk_size=100)
    for chunk, of_chunk in enumerate(store.chunks):
        store.write(chunk, np.stack([toy_maps(int(image_id), num_channels)[0] for image_id in of_chunk]))
    return store


def box_of(number: int) -> np.ndarray:
    """The cell of the mass, in shares of the image's sides."""
    row, column = toy_maps(number)[1]
    corners = np.array([column, row, column + 1, row + 1], float)
    return (corners / np.tile(CELLS[::-1], 2))[None]


def images_of(numbers: range) -> LesionImages:
    ids = [str(number) for number in numbers]
    rows = pl.DataFrame({"image_id": ids}).with_columns(
        height_px=pl.lit(HEIGHT_PX, pl.Int32), width_px=pl.lit(WIDTH_PX, pl.Int32)
    )
    true = {str(number): box_of(number) for number in numbers if number % 2}
    return LesionImages(rows, true, dict(zip(true, [*true.values()][1:] + [*true.values()][:1], strict=True)))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.set_num_threads(1)
    return make_model()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[MammoFactor, MapStore]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("toys")
    store = toy_store(folder / "maps", range(TESTED.stop))

    def part(numbers: range) -> AttributedImages:
        return AttributedImages([str(number) for number in numbers], np.array([[number % 2] for number in numbers]))

    job = FactorJob(
        store,
        ["mass"],
        torch.eye(1, 8),
        part(range(NUM_TRAIN)),
        part(range(NUM_TRAIN, TESTED.start)),
        "strict",
        seed=0,
        work=folder / "work",
        num_epochs=20,
        batch_size=16,
        learning_rate=5e-3,
        hidden=16,
        temperature=0.07,
    )
    return train_factor(job).factor, store


@pytest.fixture(scope="module")
def found(model: LoadedModel, trained: tuple[MammoFactor, MapStore]) -> FoundByHeat:
    return attribute_images(trained[0], model, trained[1], ["mass"], {"mass": images_of(TESTED)}, SECTION, seed=0)


def interval(found: FoundByHeat, protocol: str, metric: str = "pointing_game") -> Any:
    rows = found.attributions.filter(protocol=protocol)
    return mean_over_images(rows[metric], rows["image_id"], seed=0)


@pytest.mark.parametrize("metric", ["pointing_game", "energy_inside", "region_iou"])
def test_learned_from_labels_alone_it_beats_the_centre_prior_and_with_other_boxes_it_does_not(
    found: FoundByHeat, metric: str
) -> None:
    factor, centre, control = (interval(found, name, metric) for name in (FACTOR, CENTRE_PRIOR, FACTOR + SHUFFLED))
    assert factor.low > centre.high
    assert factor.low > interval(found, RANDOM, metric).high
    assert control.low <= 1 / 14  # the share of a cell among those where masses are is 1 / 8, of all 1 / 28
    assert control.high < factor.low


def test_the_surest_boxes_lie_on_the_masses_in_pixels_of_the_png(found: FoundByHeat) -> None:
    best = found.detections.filter(protocol=FACTOR).sort("score", descending=True).unique("image_id", keep="first")
    of_mass = best.filter(pl.col("image_id").cast(pl.Int32) % 2 == 1)
    hits = 0
    for image_id, *box in of_mass.select("image_id", "x_min", "y_min", "x_max", "y_max").rows():
        truth = box_of(int(image_id))[0] * [WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX]
        centre = (np.array(box[:2]) + box[2:]) / 2
        hits += int((centre >= truth[:2]).all() and (centre <= truth[2:]).all())
    assert hits > 0.8 * len(of_mass) > 0.5 * NUM_TEST / 2


def test_an_image_without_the_finding_has_less_sure_boxes_and_no_attribution(found: FoundByHeat) -> None:
    surest = found.detections.filter(protocol=FACTOR).group_by("image_id").agg(pl.col("score").max())
    surest = (
        images_of(TESTED).rows.join(surest, on="image_id", how="left").fill_null(0.0)
    )  # without anything hot: no box
    has = pl.col("image_id").cast(pl.Int32) % 2 == 1
    assert surest.filter(has)["score"].median() > surest.filter(~has)["score"].quantile(0.9)
    assert found.detections["score"].is_between(0, 1).all()
    for table in (found.attributions, found.heat_maps):
        assert table.filter(~has).is_empty()


def test_heat_maps_are_kept_as_cells_of_images_with_the_finding(
    found: FoundByHeat, trained: tuple[MammoFactor, MapStore]
) -> None:
    assert set(found.heat_maps["protocol"]) == {FACTOR}  # these encoders' features are not made of the maps
    image_id, rows, columns, heat = found.heat_maps.select("image_id", "rows", "columns", "heat").row(0)
    maps = torch.from_numpy(trained[1].read(image_id)).float()
    with torch.no_grad():
        weights = trained[0](maps[None])[1][0, :, 0].clamp(min=0)
    np.testing.assert_allclose(
        np.reshape(heat, (rows, columns)), torch.einsum("c,chw->hw", weights, maps).numpy(), rtol=1e-4
    )


def test_the_order_of_images_and_attributes_changes_nothing(
    model: LoadedModel, trained: tuple[MammoFactor, MapStore], found: FoundByHeat
) -> None:
    part = images_of(TESTED)
    turned = LesionImages(part.rows.reverse(), part.true_boxes, part.other_boxes)
    again = attribute_images(trained[0], model, trained[1], ["mass"], {"mass": turned}, SECTION, seed=0)
    assert again.detections.equals(found.detections)
    assert again.attributions.equals(found.attributions)


def test_an_attribute_without_boxes_is_left_out(model: LoadedModel, trained: tuple[MammoFactor, MapStore]) -> None:
    nothing = attribute_images(trained[0], model, trained[1], ["mass"], {}, SECTION, seed=0)
    assert (len(nothing.detections), len(nothing.attributions), len(nothing.heat_maps)) == (0, 0, 0)


def test_texts_are_held_against_cells_where_the_features_are_made_of_the_maps(
    model: LoadedModel, tmp_path: Path
) -> None:
    width = model.model.image_encoder.num_features
    store = toy_store(tmp_path, range(3), width)
    factor = MammoFactor(CELLS, torch.randn(2, 8, generator=torch.Generator().manual_seed(1)), hidden=4)
    heats = heats_of_image(factor, model, store.read("1"), SECTION, seed=0)
    assert len(heats) == 2
    for heat in heats:
        assert set(heat) == {FACTOR, *BASELINES}
        assert all(each.cells.shape == CELLS for each in heat.values())
        assert heat[GRAD_CAM].image_score == heat[SIMILARITY_MAP].image_score
        assert 0 <= heat[GRAD_CAM].image_score <= 1
    assert not torch.equal(heats[0][RANDOM].cells, heats[1][RANDOM].cells)


def test_the_centre_prior_is_hottest_in_the_middle(model: LoadedModel) -> None:
    factor = MammoFactor((5, 7), torch.eye(1, 8), hidden=4)
    cells = heats_of_image(factor, model, np.zeros((3, 5, 7), np.float16), SECTION, seed=0)[0][CENTRE_PRIOR].cells
    assert divmod(int(cells.argmax()), 7) == (2, 3)
