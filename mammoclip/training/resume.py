"""Resume checkpoints of a run: each appears whole, in one rename, and the newest two are kept.

A checkpoint is a folder ``step-<steps done>`` that DeepSpeed wrote. One that was damaged later (full disk, lost power)
is recognised by the checksums inside its files, removed and passed over.
"""

from __future__ import annotations

import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

from mammoclip.training.distributed import decide_together

log = logging.getLogger(__name__)

_STATE = "mammoclip"  # DeepSpeed puts keys of its own beside ours
_UNFINISHED = "unfinished"
_KEPT = 2


def save_checkpoint(engine: Any, state: dict[str, Any], work: Path, rank: int) -> None:
    """Write the engine and ``state`` (with its ``step``) under ``work``; every process of the run must call it."""
    if rank == 0:
        shutil.rmtree(work / _UNFINISHED, ignore_errors=True)
    engine.save_checkpoint(str(work), tag=_UNFINISHED, client_state={_STATE: state}, save_latest=False)
    if rank == 0:
        folder = work / f"step-{state['step']}"
        shutil.rmtree(folder, ignore_errors=True)
        (work / _UNFINISHED).rename(folder)
        for old in _newest_first(work)[_KEPT:]:
            shutil.rmtree(old)


def load_checkpoint(engine: Any, work: Path, rank: int) -> dict[str, Any] | None:
    """Load the newest whole checkpoint under ``work`` and return its state, or None if there is none."""
    step = decide_together(_newest_whole_step(work) if rank == 0 else -1)
    if step < 0:
        return None
    _, client_state = engine.load_checkpoint(str(work), tag=f"step-{step}")
    state: dict[str, Any] = client_state[_STATE]
    return state


def _newest_whole_step(work: Path) -> int:
    """Return the step of the newest whole checkpoint, -1 without one, and remove damaged ones."""
    for folder in _newest_first(work):
        if _is_whole(folder):
            return _step(folder)
        log.warning("pretrain: the checkpoint %s is damaged; going back to an older one", folder.name)
        shutil.rmtree(folder)
    return -1


def _newest_first(work: Path) -> list[Path]:
    return sorted(work.glob("step-*"), key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _is_whole(folder: Path) -> bool:
    """Return whether every file is an archive (torch's format) whose parts have their checksums."""
    files = list(folder.glob("*.pt"))
    try:
        for file in files:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    return False
    except (OSError, zipfile.BadZipFile):
        return False
    return bool(files)
