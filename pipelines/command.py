"""What every stage command shares: its log, its errors, its configuration section."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mammoclip.config import Section, parse_section
from mammoclip.errors import ConfigError, Interrupted, MammoClipError

S = TypeVar("S", bound=Section)


def run_stage(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None]) -> None:
    """Run a stage: progress on the screen, the whole story in ``--log``, one sentence and exit 1 on failure.

    Of several processes that a launcher started, the first has screen and log; the others have a log of their own.
    """
    parser.add_argument("--log", type=Path, required=True, help="log file of the stage")
    arguments = parser.parse_args()
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    rank = int(os.environ.get("RANK", "0"))
    path = arguments.log if rank == 0 else arguments.log.with_name(f"{arguments.log.name}.rank{rank}")
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO if rank == 0 else logging.CRITICAL)
    screen.addFilter(logging.Filter("mammoclip"))
    screen.setFormatter(logging.Formatter("  %(message)s"))
    story = logging.FileHandler(path, mode="w", encoding="utf-8")
    story.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[screen, story], force=True)
    log = logging.getLogger("pipelines")
    try:
        run(arguments)
    except Interrupted as error:
        logging.getLogger("mammoclip.stopped").warning("%s", error)
        sys.exit(error.EXIT_CODE)
    except MammoClipError as error:
        log.exception("stage failed")
        sys.exit(f"Error: {error}")
    except Exception as error:  # the last resort: a bug, whose traceback belongs in the log and not on the screen
        log.exception("stage failed")
        sys.exit(f"Error: unexpected {type(error).__name__}; the whole story is in {path}")


def section_argument(section: type[S]) -> Callable[[str], S]:
    """Return an argparse type that reads a configuration section from JSON."""

    def parse(text: str) -> S:
        try:
            return parse_section(section, json.loads(text))
        except (ConfigError, json.JSONDecodeError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def content_folder(work: Path, science: Sequence[Any], files: Sequence[Path]) -> Path:
    """Return the folder below ``work`` for checkpoints of a job: other settings or other contents get another one.

    Args:
        work: undeclared folder of the job, which survives an interruption.
        science: settings that decide the result, ready for JSON.
        files: what is read, such as tables and weights; the images table holds the checksum of every PNG.
    """
    digest = hashlib.sha256(json.dumps(science, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return work / digest.hexdigest()[:16]
