"""DICOM files and folders to PNGs, without a data set: ``mammoclip convert``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from mammoclip.artifacts import atomic_path, write_text
from mammoclip.data.shard import describe
from mammoclip.data.workers import map_ordered
from mammoclip.dicom import Converted, Recipe, convert_or_reject
from mammoclip.errors import DatasetError, RejectedInput

_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")


def find_targets(inputs: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Return each file to convert with its PNG: ``out/<stem>.png``, in the folder's own subfolders for a folder.

    Files of a folder come in the order of their paths. What lies in ``out`` is left out.

    Raises:
        DatasetError: if an input is missing, or there is no file in any.
    """
    targets: list[tuple[Path, Path]] = []
    for given in inputs:
        if given.is_file():
            targets.append((given, out / _png_name(given)))
        elif given.is_dir():
            files = sorted(path for path in given.rglob("*") if path.is_file())
            outside = (file for file in files if not file.resolve().is_relative_to(out.resolve()))
            targets += [(file, out / file.relative_to(given).parent / _png_name(file)) for file in outside]
        else:
            raise DatasetError(f"{given} is neither a file nor a folder")
    if not targets:
        raise DatasetError(f"there is no file in {', '.join(map(str, inputs))}")
    return list(dict.fromkeys(targets))


def convert_files(
    targets: Sequence[tuple[Path, Path]], out: Path, recipe: Recipe, processes: int, time_limit_s: float
) -> Iterator[RejectedInput | None]:
    """Convert files; yield, for each in order, None when its PNG and JSON are written, else why not.

    ``<stem>.json`` says where the pixels of ``<stem>.png`` come from: crop box, scale and recipe. At the end
    ``out/rejects.json`` lists the path, reason and detail of every file that was not converted; none: an empty list.
    Two files with the same PNG: the first is converted.

    Raises:
        ArtifactError: if the disk is full.
    """
    first = {out / "rejects.png": out / "rejects.json"}  # a JSON that is taken
    for source, target in targets:
        first.setdefault(target, source)
    sources = [source for source, target in targets if first[target] == source]
    results = map_ordered(partial(convert_or_reject, recipe), sources, processes, time_limit_s)
    rejects = []
    for source, target in targets:
        if first[target] != source:
            detail = f"{target.stem} is the name of what {first[target].name} gives already"
            outcome: Converted | RejectedInput = RejectedInput("duplicate_image", detail)
        else:
            outcome = next(results)
        if isinstance(outcome, RejectedInput):
            rejects.append({"path": str(source), "reason": outcome.reason, "detail": outcome.detail})
            yield outcome
            continue
        with atomic_path(target) as temporary:
            temporary.write_bytes(outcome.png)
        write_text(json.dumps(describe(outcome, recipe), indent=1) + "\n", target.with_suffix(".json"))
        yield None
    write_text(json.dumps(rejects, indent=1) + "\n", out / "rejects.json")


def _png_name(source: Path) -> str:
    """Return the name without a DICOM suffix; a dot may also be part of an id."""
    stem = source.stem if source.suffix.lower() in _SUFFIXES else source.name
    return f"{stem}.png"
