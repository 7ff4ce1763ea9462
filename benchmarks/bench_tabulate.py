"""How long a million rows take from the data set's tables to ours, and how much memory all processes hold at most.

Two layouts, 200,000 patients each: VinDr-Mammo (a million rows of findings, 800,000 images, ten findings each) and
one's own images with reports (a million rows, 400,000 breasts with a report of their own for nearly each), both on two
cores. Twice the rows follow, for the ratio.

    python benchmarks/bench_tabulate.py [thousands of patients]
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from mammoclip.data.index import list_dataset
from mammoclip.data.splits import SplitFractions
from mammoclip.data.tabulate import tabulate_dataset
from mammoclip.datasets import ADAPTERS
from mammoclip.datasets.base import FINDING_NAMES

PROCESSES = 2


def write_vindr(root: Path, num_patients: int) -> int:
    """Write both tables: four images a patient, one row of findings each, and a second one for a quarter of them."""
    rng = np.random.default_rng(0)
    images = pl.DataFrame({"study": np.repeat(np.arange(num_patients), 4), "view": np.tile(np.arange(4), num_patients)})
    categories = [f"['{name.replace('_', ' ').title()}']" for name in FINDING_NAMES]
    listed = images.select(
        study_id=pl.format("study{}", "study"),
        series_id=pl.format("series{}", "study"),
        image_id=pl.format("image{}x{}", "study", "view"),
        laterality=pl.when(pl.col("view") < 2).then(pl.lit("L")).otherwise(pl.lit("R")),
        view_position=pl.when(pl.col("view") % 2 == 0).then(pl.lit("CC")).otherwise(pl.lit("MLO")),
        height=pl.lit(3518),
        width=pl.lit(2800),
        breast_birads=pl.Series([f"BI-RADS {n}" for n in rng.integers(1, 6, len(images))]),
        breast_density=pl.Series([f"DENSITY {'ABCD'[n]}" for n in rng.integers(0, 4, len(images))]),
        split=pl.when(pl.col("study") % 5 == 0).then(pl.lit("test")).otherwise(pl.lit("training")),
    )
    listed.write_csv(root / "breast-level_annotations.csv")
    rows = pl.concat([listed, listed.sample(fraction=0.25, seed=1)])
    has = rng.random(len(rows)) < 0.12
    corner = rng.uniform(100, 2000, (2, len(rows)))
    side = rng.uniform(50, 500, len(rows))
    box = {"xmin": corner[0], "ymin": corner[1], "xmax": corner[0] + side, "ymax": corner[1] + side}
    drawn = rng.integers(len(categories), size=len(rows))
    rows.with_columns(
        finding_categories=pl.Series(np.where(has, np.array(categories)[drawn], "['No Finding']")),
        finding_birads=pl.Series(["BI-RADS 4" if h else None for h in has]),
        **{name: pl.Series(np.where(has, values, np.nan)).fill_nan(None) for name, values in box.items()},
    ).write_csv(root / "finding_annotations.csv")
    return len(rows)


def write_reports(root: Path, num_patients: int) -> int:
    """Write ``reports.csv``: five images and two reports a patient, one of each side."""
    rng = np.random.default_rng(0)
    shapes, margins = ("oval", "round", "irregular"), ("circumscribed", "indistinct", "spiculated", "obscured")
    quadrants = ("upper outer", "upper inner", "lower outer", "lower inner")
    rows: list[tuple[str, ...]] = []
    for patient in range(num_patients):
        density = ("almost entirely fatty", "heterogeneously dense", "extremely dense")[rng.integers(3)]
        for side, word in (("L", "left"), ("R", "right")):
            found = rng.random() < 0.3
            size = rng.integers(40, 400) / 10
            mass = (
                f"There is a {size} mm {shapes[rng.integers(3)]} mass with {margins[rng.integers(4)]} margins in the "
                f"{quadrants[rng.integers(4)]} quadrant of the {word} breast."
                if found
                else f"No mass or suspicious calcification is seen in the {word} breast, compared with exam {patient}."
            )
            findings = f"The breasts are {density}. {mass} No architectural distortion. The skin and nipple are normal."
            impression = f"BI-RADS {4 if found else 1}. {'Biopsy is recommended' if found else 'Annual screening'}."
            for view in ("CC", "MLO", "XCCL")[: 3 if side == "L" else 2]:
                rows.append((f"p{patient}", f"p{patient}{side}{view}", side, view, findings, impression))
    columns = ["patient_id", "image_id", "laterality", "view", "FINDINGS", "IMPRESSION"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(root / "reports.csv")
    return len(rows)


def measure(adapter: str, root: Path, mode: str, sender) -> None:  # type: ignore[no-untyped-def]
    """Tabulate ``root`` and send the seconds and the number of images."""
    start = time.perf_counter()
    reader = ADAPTERS[adapter]()
    indexed = list_dataset(reader, root, adapter)
    done = tabulate_dataset(
        indexed.index, None, reader.annotations(root), adapter, mode, SplitFractions(0.1, 0.2, 0), processes=PROCESSES
    )
    for name, frame in done.tables.items():
        frame.write_parquet(root / f"{name}.parquet")
    sender.send((time.perf_counter() - start, len(done.tables["images"])))


def resident_gb(pid: int) -> float:
    """Return the memory of a process and of all that it started."""
    try:
        own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e9
        tasks = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended by now
        return 0.0
    return own + sum(resident_gb(int(child)) for children in tasks for child in children)


def run(adapter: str, mode: str, num_patients: int) -> float:
    """Print one line and return the seconds."""
    write = write_vindr if adapter == "vindr" else write_reports
    with tempfile.TemporaryDirectory() as folder:
        num_rows = write(Path(folder), num_patients)
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=measure, args=(adapter, Path(folder), mode, sender))
        process.start()
        peak = 0.0
        while not receiver.poll(0.25):
            peak = max(peak, resident_gb(process.pid or 0))
        seconds, num_images = receiver.recv()
        process.join()
    print(
        f"{adapter:13} {mode:7} {num_rows:>10,} rows {num_patients:>8,} patients {num_images:>10,} images "
        f"{seconds:6.1f} s  {peak:.1f} GB with all processes",
        flush=True,
    )
    return float(seconds)


if __name__ == "__main__":
    patients = 1000 * int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    for layout, how in (("vindr", "strict"), ("vindr", "compat"), ("image_report", "strict")):
        once, twice = run(layout, how, patients), run(layout, how, 2 * patients)
        print(f"{layout:13} {how:7} twice the rows take {twice / once:.2f} times as long")
