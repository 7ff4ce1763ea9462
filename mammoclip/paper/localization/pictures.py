"""Every picture of localisation, by the name of its file, with the sentence that says what is seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mammoclip.config import ALL_FINDINGS, FACTOR, Detector, LocalizeSection
from mammoclip.config.data import FINDING_NAMES
from mammoclip.data.reader import ShardReader, eight_bits
from mammoclip.localization.boxed import CORNERS
from mammoclip.localization.protocols import GRAD_CAM
from mammoclip.paper.figures import BLUE, CONTROL_DASHES, CONTROL_GREYS, GREEN, VERMILION
from mammoclip.paper.inputs import Inputs, RunResults
from mammoclip.paper.localization.curves import Detected, draw_detection_curves
from mammoclip.paper.localization.images import MAX_BOXES, Shown, draw_found_boxes, draw_heat_maps
from mammoclip.paper.localization.table import method_name
from mammoclip.paper.localization.tested_images import (
    ImagesTested,
    choose_along_ranking,
    find_tested_images,
    sample_with_and_without,
)
from mammoclip.paper.pictures import Picture
from mammoclip.paper.wording import format_number, format_percent, task_name

_STYLES: Mapping[tuple[str, bool], tuple[str, Any]] = {
    ("detection-frozen", False): (BLUE, "-"),
    ("detection-fine-tune", False): (VERMILION, (0, (6, 2))),
    ("detection-frozen", True): ("#56B4E9", (0, (6, 2, 1, 2))),
    ("detection-fine-tune", True): ("#E69F00", (0, (1, 1))),
    (FACTOR, False): (GREEN, "-."),
}
"""Colour and line by protocol, and whether all findings were trained together."""
_MAPS = (FACTOR, GRAD_CAM)
_NUM_RANKED = 3
_NUM_WITH, _NUM_WITHOUT = 4, 2


def draw_localization(inputs: Inputs, localize: LocalizeSection, seed: int) -> Iterator[Picture]:
    """Yield the heat maps, then the boxes and the curves of every finding, data set by data set.

    Shown is the main run, in the curves with the control runs behind it. Findings without a true box among the test
    images have no picture. Of a detector the largest share of the training patients, of its seeds the lowest.
    """
    for dataset in localize.datasets:
        reader = ShardReader(inputs.datasets[dataset].images, inputs.datasets[dataset].shards)
        try:
            drawer = _Drawer(inputs, localize, dataset, reader, seed)
            yield from drawer.heat_maps()
            for finding in FINDING_NAMES:
                yield from drawer.of_finding(finding)
        finally:
            reader.close()


class _Drawer:
    """Draws the pictures of one data set."""

    def __init__(self, inputs: Inputs, localize: LocalizeSection, dataset: str, reader: ShardReader, seed: int) -> None:
        self._inputs = inputs
        self._localize = localize
        self._dataset = dataset
        self._reader = reader
        self._seed = seed
        self._tested: dict[tuple[str, str], ImagesTested] = {}

    def heat_maps(self) -> Iterator[Picture]:
        """Yield one picture with a row for each attribute of Mammo-FActOR that has heat maps."""
        main = self._inputs.main.name
        if not self._has_factor:
            return
        rows = {name: self._ranked(name) for name in self._localize.factor.attributes}
        rows = {name: shown for name, shown in rows.items() if shown}
        if not rows:
            return
        yield Picture(
            f"heat_maps.{self._dataset}",
            main,
            f"Heat maps of {main}: {self._dataset}",
            f"One test image of every patient with a lesion, drawn at random, ranked by the share of {FACTOR}'s heat "
            "that lies in true boxes (energy): the best, the median and the worst. Pointing is 1 where the hottest "
            f"place lies in a true box. Thin: the surest boxes of {FACTOR}, {MAX_BOXES} at most.",
            draw_heat_maps(rows, _MAPS, self._read, self._dataset),
            is_photograph=True,
        )

    def of_finding(self, finding: str) -> Iterator[Picture]:
        """Yield the boxes and the curves of the detectors that looked for a finding; nothing when there is none."""
        main, where = self._inputs.main, f"{task_name(finding)}, {self._dataset}"
        detectors = self._detectors(main, finding)
        if not detectors:
            return
        others = [detector for run in self._inputs.controls for detector in self._detectors(run, finding)]
        grey = [replace(each, style=_grey(number), is_control=True) for number, each in enumerate(others)]
        images = sample_with_and_without(detectors[0].tested, _NUM_WITH, _NUM_WITHOUT, self._seed)
        yield Picture(
            f"detections.{self._dataset}.{finding}",
            main.name,
            f"Boxes that detectors of {main.name} found: {where}",
            "Test images with and without the finding, drawn at random, one per patient, the same for every detector; "
            f"of the boxes found the {MAX_BOXES} surest.",
            draw_found_boxes(detectors, images, self._read, finding, self._dataset),
            is_photograph=True,
        )
        yield Picture(
            f"detection_curves.{self._dataset}.{finding}",
            main.name,
            f"Precision-recall and FROC of detectors: {where}",
            f"Coloured: {main.name}; {FACTOR}, where there is one, has learned from labels of images alone. Grey: the "
            "control runs. On the left, at each recall the best precision from there on; on the right, what share of "
            "the lesions is found at how many false positives per image.",
            draw_detection_curves([*detectors, *self._factor(finding), *grey], finding, self._dataset),
        )

    @property
    def _has_factor(self) -> bool:
        main = self._inputs.main.name
        return (main, self._dataset) in self._localize.factors([main])

    def _read(self, image_id: str) -> npt.NDArray[np.uint8]:
        return eight_bits(self._reader.read(image_id))

    def _images(self, finding: str, target: str) -> ImagesTested:
        key = finding, target
        if key not in self._tested:
            tables = self._inputs.datasets[self._dataset]
            self._tested[key] = find_tested_images(tables, finding, target, self._localize.mode)
        return self._tested[key]

    def _ranked(self, finding: str) -> list[Shown]:
        """Return the images of a finding that are shown with their heat maps; none when it has no heat map."""
        main = self._inputs.main
        measured = main.attributions[self._dataset].filter(finding=finding)
        maps = main.heat_maps[self._dataset].filter(finding=finding)
        mapped = maps.filter(protocol=FACTOR).select("image_id")
        if mapped.is_empty():
            return []
        tested = self._images(finding, finding)
        ranked = (
            measured.filter(protocol=FACTOR)
            .join(mapped, on="image_id", how="semi")
            .join(tested.rows.filter("label").select("image_id", "patient_id"), on="image_id")
        )
        num_patients = ranked["patient_id"].n_unique()
        found = main.detections[self._dataset].filter(finding=finding, protocol=FACTOR)
        surest = found.sort("score", *CORNERS, descending=[True, False, False, False, False])
        return [
            Shown(
                f"{place} of {num_patients}" if num_patients > 1 else "the only one",
                image_id,
                tested.boxes_of(image_id),
                surest.filter(image_id=image_id).head(MAX_BOXES).select(CORNERS).rows(),
                _maps_of(maps.filter(image_id=image_id), measured.filter(image_id=image_id)),
            )
            for place, image_id in choose_along_ranking(ranked, "energy_inside", _NUM_RANKED, self._seed)
        ]

    def _detectors(self, run: RunResults, finding: str) -> list[Detected]:
        """Return a run's detectors of a finding with a true box, one for each protocol and target."""
        cells: dict[tuple[str, str], Detector] = {}
        for cell in self._localize.detectors([run.name]):
            if (cell.run, cell.dataset) == (run.name, self._dataset) and finding in cell.findings:
                key = cell.protocol, cell.target
                cells[key] = min(cells.get(key, cell), cell, key=lambda each: (-each.fraction, each.seed))
        found = run.detections[self._dataset].filter(finding=finding)
        detectors = []
        for (protocol, target), cell in cells.items():
            tested = self._images(finding, target)
            if tested.boxes.is_empty():
                continue
            fraction = float(f"{cell.fraction:g}")  # as the file is named
            mine = found.filter(protocol=protocol, target=target, fraction=fraction, seed=cell.seed)
            share = f", {format_percent(fraction)}" if fraction < 1 else ""
            of_run = "" if run is self._inputs.main else f"{run.name}, "
            name = f"{of_run}{method_name(protocol, target)}{share}"
            style = _coloured(protocol, target)
            detectors.append(Detected(name, tested, tested.detections(mine), style, is_control=False))
        return detectors

    def _factor(self, finding: str) -> list[Detected]:
        """Return the boxes of the main run's Mammo-FActOR, if it was trained for the finding."""
        if finding not in self._localize.factor.attributes or not self._has_factor:
            return []
        tested = self._images(finding, finding)
        found = self._inputs.main.detections[self._dataset].filter(finding=finding, protocol=FACTOR)
        return [Detected(FACTOR, tested, tested.detections(found), _coloured(FACTOR, finding), is_control=False)]


def _maps_of(maps: pl.DataFrame, measured: pl.DataFrame) -> dict[str, tuple[npt.NDArray[np.float32], str]]:
    """Return the map of each protocol, and its numbers in words."""
    found = {}
    for row in maps.iter_rows(named=True):
        numbers = measured.filter(protocol=row["protocol"]).select("energy_inside", "pointing_game").rows()
        energy, pointing = numbers[0] if numbers else (None, None)
        text = f"energy {format_number(energy)}\npointing {format_number(pointing, 0 if pointing in (0, 1) else 2)}"
        found[row["protocol"]] = (np.array(row["heat"], np.float32).reshape(row["rows"], row["columns"]), text)
    return found


def _coloured(protocol: str, target: str) -> dict[str, Any]:
    colour, line = _STYLES[protocol, target == ALL_FINDINGS]
    return {"color": colour, "ls": line, "lw": 1.8}


def _grey(number: int) -> dict[str, Any]:
    grey = CONTROL_GREYS[number // len(CONTROL_DASHES) % len(CONTROL_GREYS)]
    return {"color": grey, "ls": CONTROL_DASHES[number % len(CONTROL_DASHES)], "lw": 1.0}
