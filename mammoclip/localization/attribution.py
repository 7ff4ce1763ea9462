"""Heat maps of test images, by Mammo-FActOR and by what comes for free, and what each shows of the findings.

Free are: the similarity of every cell with the text (similarity-map), its gradient (grad-cam), the middle of the image
(centre-prior) and noise (random). Shapes: C channels, h and w cells, K attributes, D embedding, N boxes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mammoclip.artifacts import ATTRIBUTIONS, DETECTIONS, HEAT_MAPS
from mammoclip.config import FACTOR, FactorSection
from mammoclip.data.progress import report_progress
from mammoclip.localization.attribution_metrics import energy_inside, pointing_game, region_iou
from mammoclip.localization.boxes import LesionImages
from mammoclip.localization.factor import MammoFactor, weighted_map
from mammoclip.localization.factor_training import Maps, MapStore
from mammoclip.localization.heat_boxes import boxes_from_heat
from mammoclip.localization.protocols import CENTRE_PRIOR, GRAD_CAM, RANDOM, SHUFFLED, SIMILARITY_MAP, WITHOUT_MODEL
from mammoclip.models import LoadedModel
from mammoclip.models.relevance import enlarge_map, gradient_map, similarity_map

_TABLES = (DETECTIONS, ATTRIBUTIONS, HEAT_MAPS)
_CELL_PX = 8  # heat maps are drawn with so many pixels a cell, finer than their information
_CENTRE_SIGMA = 0.25  # of the height and of the width


@dataclass(frozen=True)
class FoundByHeat:
    """Rows of the tables of these names."""

    detections: pl.DataFrame
    attributions: pl.DataFrame
    heat_maps: pl.DataFrame


@dataclass(frozen=True)
class Heat:
    """A heat map as cells (h, w) of any range, and how sure it is that the image has the attribute, from 0 to 1."""

    cells: Tensor
    image_score: float


def attribute_images(
    factor: MammoFactor,
    model: LoadedModel,
    store: MapStore,
    attributes: Sequence[str],
    tested: Mapping[str, LesionImages],
    section: FactorSection,
    seed: int,
) -> FoundByHeat:
    """Return what the heat maps of each attribute find: boxes in all its test images, the rest where it is.

    Args:
        factor: trained for ``attributes``, K.
        model: of the encoder whose maps ``store`` holds.
        store: last maps of the images.
        attributes: K names.
        tested: by attribute; those that are no findings with boxes are left out.
        section: how boxes are drawn.
        seed: of the random heat maps.
    """
    of_attribute = {name: {row[0]: row[1:] for row in _sizes(each.rows)} for name, each in tested.items()}
    image_ids = sorted({image_id for sizes in of_attribute.values() for image_id in sizes})
    tables = _Tables(section, seed)
    for image_id in report_progress(image_ids, len(image_ids), f"{FACTOR}: images"):
        heats = heats_of_image(factor, model, store.read(image_id), section, _seed_of(seed, image_id))
        for name, of_protocol in zip(attributes, heats, strict=True):
            if image_id in of_attribute.get(name, {}):
                for protocol, heat in of_protocol.items():
                    tables.add(image_id, name, protocol, heat, of_attribute[name][image_id], tested[name])
    return tables.frames()


@torch.no_grad()
def heats_of_image(
    factor: MammoFactor, model: LoadedModel, maps: Maps, section: FactorSection, seed: int
) -> list[dict[str, Heat]]:
    """Return the heat map of each protocol for each of K attributes, of the last maps (C, h, w) of one image.

    Where the pooled features are not as wide as the maps, as in some encoders of timm, texts cannot be held against
    cells, and similarity-map and grad-cam are left out.
    """
    batch, texts = torch.from_numpy(maps).float()[None], factor.text_embeddings
    scores, similarities = factor(batch)
    height, width = maps.shape[1:]
    noise = torch.from_numpy(np.random.default_rng(seed).random((len(texts), height, width), np.float32))
    down, across = (((torch.arange(cells) + 0.5) / cells - 0.5) / _CENTRE_SIGMA for cells in (height, width))
    centre = torch.exp(-(down[:, None] ** 2 + across**2) / 2)
    heats = [
        {
            FACTOR: Heat(
                weighted_map(batch[0], similarities[0, :, number], keep_negative=section.keep_negative),
                _as_score(float(scores[0, number]) * factor.temperature),
            ),
            CENTRE_PRIOR: Heat(centre, 1.0),
            RANDOM: Heat(noise[number], 1.0),
        }
        for number in range(len(texts))
    ]
    if maps.shape[0] != model.model.image_encoder.num_features:  # its pooled features are not made of these maps alone
        return heats
    embedding = model.model.project_image(batch.mean(dim=(2, 3)))[0]
    gradients = gradient_map(model.model, batch, texts)[0]
    for text, gradient, of_protocol in zip(texts, gradients, heats, strict=True):
        likeness = _as_score(float(embedding @ text))
        of_protocol[GRAD_CAM] = Heat(gradient, likeness)
        of_protocol[SIMILARITY_MAP] = Heat(similarity_map(model.model, batch, text)[0], likeness)
    return heats


class _Tables:
    """Collects the rows of the three tables."""

    def __init__(self, section: FactorSection, seed: int) -> None:
        self._section = section
        self._seed = seed
        self._rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in _TABLES}

    def add(
        self, image_id: str, finding: str, protocol: str, heat: Heat, size_px: tuple[int, int], tested: LesionImages
    ) -> None:
        """Add what a heat map finds in an image of ``size_px``, (height, width)."""
        told = {"image_id": image_id, "finding": finding, "protocol": protocol}
        rows, columns = heat.cells.shape
        drawn = enlarge_map(heat.cells, (rows * _CELL_PX, columns * _CELL_PX))
        height, width = drawn.shape
        area = self._section.min_box_area_px * drawn.size / (size_px[0] * size_px[1])
        found = boxes_from_heat(
            drawn, self._section.box_threshold, min_area_px=math.ceil(area), image_score=heat.image_score
        )
        scale = np.tile([size_px[1] / width, size_px[0] / height], 2)
        for box, score in zip((found.boxes * scale).tolist(), found.scores.tolist(), strict=True):
            corners = dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))
            trained = {"target": finding, "fraction": 1.0, "seed": self._seed, "selected": None}
            self._rows[DETECTIONS.name].append({**told, **trained, **corners, "score": score})
        for ending, boxes in (("", tested.true_boxes), (SHUFFLED, tested.other_boxes)):
            if image_id in boxes:
                truths = boxes[image_id] * np.tile([width, height], 2)
                shown = {
                    "pointing_game": pointing_game(drawn, truths),
                    "energy_inside": energy_inside(drawn, truths),
                    "region_iou": region_iou(found.boxes, truths),
                }
                self._rows[ATTRIBUTIONS.name].append({**told, "protocol": protocol + ending, **shown})
        if image_id in tested.true_boxes and protocol not in WITHOUT_MODEL:
            cells = heat.cells.flatten().tolist()
            self._rows[HEAT_MAPS.name].append({**told, "rows": rows, "columns": columns, "heat": cells})

    def frames(self) -> FoundByHeat:
        """Return the rows as tables."""
        frames = {table.name: pl.DataFrame(self._rows[table.name], schema=table.schema) for table in _TABLES}
        return FoundByHeat(**frames)


def _sizes(rows: pl.DataFrame) -> list[tuple[str, int, int]]:
    return rows.select("image_id", "height_px", "width_px").rows()


def _as_score(cosine: float) -> float:
    return (1 + min(max(cosine, -1.0), 1.0)) / 2


def _seed_of(seed: int, image_id: str) -> int:
    """Return a seed of the image's own, so that images can come in any order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{image_id}".encode()).digest()[:8])
