"""Index: headers a second with one worker process, on phantom files of all transfer syntaxes that the demo has."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mammoclip.data.index import index_dataset
from mammoclip.datasets.phantom import generate_cohort
from mammoclip.datasets.phantom_adapter import Phantom

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=1000, help="four files each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "cohort"
        generate_cohort(root, num_patients=arguments.patients, seed=1, rows_px=200, columns_px=128, processes=2)
        for attempt in ("first", "second"):
            start = time.perf_counter()
            indexed = index_dataset(Phantom(), root, "phantom", None, 1, Path(name) / "work" / attempt)
            seconds = time.perf_counter() - start
            rate = indexed.num_found / seconds
            print(f"{indexed.num_found} files in {seconds:.1f} s: {rate:.0f} files/s a core (>= 300)")
        start = time.perf_counter()
        index_dataset(Phantom(), root, "phantom", None, 1, Path(name) / "work" / "first")
        print(f"after an interruption at the end: {time.perf_counter() - start:.1f} s")
