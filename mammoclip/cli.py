"""The command ``mammoclip``: what a person does with images and a trained model, without the workflow."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl
import typer
from rich.console import Console
from rich.progress import track

from mammoclip.artifacts import REJECTS, TABULATED, atomic_path, write_table
from mammoclip.config import Config, TabulateSection
from mammoclip.data.convert import convert_files, find_targets
from mammoclip.data.index import list_dataset
from mammoclip.data.splits import SplitFractions
from mammoclip.data.tabulate import tabulate_dataset
from mammoclip.datasets import ADAPTERS
from mammoclip.dicom import Recipe, read_mammogram, to_png_array
from mammoclip.errors import ConfigError, DatasetError, MammoClipError, RejectedInput
from mammoclip.localization.heat_boxes import boxes_from_heat
from mammoclip.localization.overlay import overlay

if TYPE_CHECKING:
    from mammoclip.models import LoadedModel

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


class Mode(StrEnum):
    """As the released code does, or as it should be."""

    compat = "compat"
    strict = "strict"


class Geometry(StrEnum):
    """How a crop is fitted into its PNG."""

    stretch = "stretch"
    pad = "pad"


ModelOption = Annotated[str, typer.Option(help="model folder, or id on the Hugging Face hub")]
ModeOption = Annotated[Mode, typer.Option(help="how DICOM becomes grey: as released (compat) or as the standard says")]
Images = Annotated[list[Path], typer.Argument(help="DICOM files, or PNG files of breast crops")]


@app.command()
def convert(
    inputs: Annotated[list[Path], typer.Argument(help="DICOM files and folders")],
    out: Annotated[Path, typer.Argument(help="folder of the PNGs")],
    mode: ModeOption = Mode.strict,
    grayscale: Annotated[Mode | None, typer.Option(help="grey scale alone; default: as --mode")] = None,
    geometry: Annotated[Geometry, typer.Option(help="stretch the crop, or keep its aspect ratio and pad")] = (
        Geometry.stretch
    ),
    bits: Annotated[int, typer.Option(help="bits of a sample, 8 or 16")] = 8,
    height: Annotated[int, typer.Option(min=1, help="rows of a PNG")] = 1520,
    width: Annotated[int, typer.Option(min=1, help="columns of a PNG")] = 912,
    processes: Annotated[int, typer.Option(min=1, help="files converted at the same time")] = os.cpu_count() or 1,
    time_limit: Annotated[float, typer.Option(min=1, help="seconds after which a file is rejected")] = 120.0,
) -> None:
    """Convert mammograms to PNGs of the breast: OUT/<stem>.png with <stem>.json beside it, and OUT/rejects.json."""
    try:
        recipe = Recipe((grayscale or mode).value, mode.value, geometry.value, height, width, bits)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    targets = find_targets(inputs, out)
    outcomes = convert_files(targets, out, recipe, processes, time_limit)
    bar = track(outcomes, "converting", len(targets), console=Console(stderr=True))
    reasons = Counter(outcome.reason for outcome in bar if outcome is not None)
    num_written = len(targets) - reasons.total()
    rejected = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    typer.echo(f"{num_written} of {len(targets)} written to {out}" + (f"; rejected: {rejected}" if rejected else ""))
    if not num_written:
        raise DatasetError(f"no file could be converted; {out / 'rejects.json'} says why")


@app.command()
def tabulate(
    dataset: Annotated[str, typer.Argument(help=f"layout of the data: {', '.join(ADAPTERS)}")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    out: Annotated[Path, typer.Option(help="folder of the tables")],
    mode: Annotated[
        Mode, typer.Option(help="tables as the released code has them, or as they should be")
    ] = Mode.strict,
    processes: Annotated[int, typer.Option(min=1, help="processes that read reports")] = os.cpu_count() or 1,
) -> None:
    """Turn a data set's own tables into Parquet, before any image is converted: boxes stay in stored pixels.

    OUT/images, findings, attributes, labels, reports, breasts and rejects.parquet, with the defaults of the workflow.
    """
    if dataset not in ADAPTERS:
        raise ConfigError(f"there is no data set layout {dataset!r}; choose one of {', '.join(ADAPTERS)}")
    adapter, section = ADAPTERS[dataset](), TabulateSection()
    fractions = SplitFractions(section.validation_fraction, section.test_fraction, Config.model_fields["seed"].default)
    indexed = list_dataset(adapter, root, dataset)
    tabulated = tabulate_dataset(
        indexed.index, None, adapter.annotations(root), dataset, mode.value, fractions, processes=processes
    )
    write_table(pl.concat([indexed.rejects, tabulated.rejects]), REJECTS, out / "rejects.parquet")
    for table in TABULATED:
        write_table(tabulated.tables[table.name], table, out / f"{table.name}.parquet")
    typer.echo(f"{tabulated.summary}; {len(indexed.rejects):,} images rejected; written to {out}")


@app.command()
def embed(images: Images, model: ModelOption, mode: ModeOption = Mode.strict) -> None:
    """Print the embedding of each image as one JSON object a line."""
    loaded = _load(model)
    for path in images:
        embedding = loaded.encode_image(loaded.preprocess([_read_grey(path, mode)]))[0]
        typer.echo(json.dumps({"image": str(path), "embedding": embedding.tolist()}))


@app.command()
def zero_shot(
    images: Images,
    model: ModelOption,
    prompt: Annotated[list[str], typer.Option(help="a sentence; give it once per class, the negative first")],
    mode: ModeOption = Mode.strict,
) -> None:
    """Print how well each sentence fits each image, as one JSON object a line; scores sum to 1 over the sentences.

    Research software: not a medical device, not for clinical use.
    """
    if len(set(prompt)) < 2 or not all(text.strip() for text in prompt):
        raise MammoClipError("give --prompt at least twice, with different sentences that are not empty")
    loaded = _load(model)
    for path in images:
        scores = loaded.zero_shot(loaded.preprocess([_read_grey(path, mode)]), prompt)[0]
        typer.echo(json.dumps({"image": str(path), "scores": dict(zip(prompt, scores.tolist(), strict=True))}))


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="a DICOM file, or a PNG file of a breast crop")],
    text: Annotated[str, typer.Option(help="a sentence, of any words")],
    model: ModelOption,
    factor: Annotated[
        Path | None, typer.Option(help="factor.safetensors of this model; without: Grad-CAM of the sentence")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="PNG to write; default: <stem>.explain.png in this folder")] = None,
    mode: ModeOption = Mode.strict,
) -> None:
    """Show where an image resembles a sentence: write the crop with a heat map, print one JSON object.

    Boxes (x_min, y_min, x_max, y_max in pixels of the crop, hottest first) enclose what is at least half as hot as the
    hottest place. A heat map compares places of one image; it does not say whether the sentence is true.

    Research software: not a medical device, not for clinical use.
    """
    if not text.strip():
        raise MammoClipError("--text is empty; give a sentence")
    out = out or Path(f"{image.stem}.explain.png")
    if out.suffix.lower() != ".png" or out.resolve() == image.resolve():
        raise MammoClipError(f"--out is {out}; give the path of a PNG file that is not the image itself")
    grey = _read_grey(image, mode)
    heat, method = _heat(grey, text, model, factor)
    boxes = boxes_from_heat(heat).boxes.astype(int).tolist()
    _, png = cv2.imencode(".png", overlay(grey, heat))
    with atomic_path(out) as temporary:
        temporary.write_bytes(png.tobytes())
    typer.echo(json.dumps({"image": str(image), "text": text, **method, "boxes": boxes, "out": str(out)}))


def _heat(
    grey: npt.NDArray[np.uint8 | np.uint16], text: str, model: str, factor: Path | None
) -> tuple[npt.NDArray[np.float32], dict[str, str]]:
    """Return the heat map of a sentence, of the size of the image, and what it was made by."""
    import torch  # noqa: PLC0415  (seconds to import)

    from mammoclip.localization.factor_file import load_factor  # noqa: PLC0415
    from mammoclip.models import model_folder  # noqa: PLC0415
    from mammoclip.models.relevance import enlarge_map  # noqa: PLC0415

    height, width = grey.shape
    if factor is None:
        loaded = _load(model)
        heat = torch.from_numpy(loaded.explain(loaded.preprocess([grey]), text)[0])
        return enlarge_map(heat, (height, width)), {"method": "grad-cam"}
    mappings = load_factor(factor)
    mappings.check_weights(model_folder(model))
    loaded = _load(model)
    attribute, cells = mappings.explain(loaded, mappings.maps(loaded, [grey])[0], text)
    return enlarge_map(cells, (height, width)), {"method": "mammo-factor", "attribute": attribute}


def _load(model: str) -> LoadedModel:
    from mammoclip.models import load  # noqa: PLC0415  (seconds to import)

    return load(model)


def _read_grey(path: Path, mode: Mode) -> npt.NDArray[np.uint8 | np.uint16]:
    """Return the 8-bit breast crop of a DICOM file, or a PNG of 8 or 16 bits as it is."""
    try:
        if path.suffix.lower() == ".png":
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
            if image is None:
                raise MammoClipError(f"{path} is not a readable PNG file")
            grey: npt.NDArray[np.uint8 | np.uint16] = image
            return grey
        return to_png_array(read_mammogram(path), mode.value)[0]
    except RejectedInput as error:
        raise MammoClipError(f"{path} cannot be used: {error.detail}") from None


def main() -> None:
    """Run the command; an error that is meant for people is one sentence and exit code 1."""
    logging.basicConfig(level=logging.WARNING)
    try:
        app()
    except MammoClipError as error:
        sys.exit(f"Error: {error}")
