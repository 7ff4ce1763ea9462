"""Generate a phantom cohort as a data set on disk."""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from mammoclip.config import PhantomCohort
from mammoclip.datasets.phantom import generate_cohort
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.generate")


def run(arguments: argparse.Namespace) -> None:
    """Replace an older cohort, which may be incomplete, by a new one."""
    cohort = arguments.config
    shutil.rmtree(arguments.out / "images", ignore_errors=True)

    def progress(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            log.info("generate: %d/%d phantom patients", done, total)

    generate_cohort(
        arguments.out,
        num_patients=cohort.num_patients,
        seed=arguments.seed,
        rows_px=cohort.rows_px,
        columns_px=cohort.columns_px,
        processes=arguments.threads,
        progress=progress,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(PhantomCohort), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    run_stage(parser, run)
