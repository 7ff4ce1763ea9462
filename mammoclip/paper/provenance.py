"""Where the numbers come from: versions, configuration, code and the digests of the files read.

Nothing here depends on time, machine or user, so the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mammoclip

PACKAGES = (
    "deepspeed",
    "imagecodecs",
    "jinja2",
    "matplotlib",
    "numpy",
    "opencv-python-headless",
    "polars",
    "pyarrow",
    "pydantic",
    "pydicom",
    "pylibjpeg",
    "safetensors",
    "scikit-learn",
    "scipy",
    "snakemake",
    "timm",
    "torch",
    "torchvision",
    "transformers",
)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Provenance:
    """Format ``provenance.json``, version 1.

    ``git_commit`` is None outside a checkout, else a hash or ``<hash>-dirty``. ``packages`` are those of the
    environment that built the report; ``files`` map a path below the results folder to its SHA-256.
    """

    version: int
    mammoclip: str
    python: str
    packages: Mapping[str, str]
    config_sha256: str
    seed: int
    git_commit: str | None
    files: Mapping[str, str]

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def collect_provenance(results: Path, files: Sequence[str], sections: Mapping[str, Any], seed: int) -> Provenance:
    """Return the provenance of a report made from ``files`` below ``results`` under the configuration ``sections``."""
    return Provenance(
        version=1,
        mammoclip=mammoclip.__version__,
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := _installed_version(name))},
        config_sha256=hash_config(sections),
        seed=seed,
        git_commit=find_git_commit(Path(mammoclip.__file__)),
        files={name: hash_file(results / name) for name in sorted(files)},
    )


def hash_config(sections: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-ready ``sections`` with sorted keys and no white space."""
    canonical = json.dumps(sections, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def find_git_commit(source: Path) -> str | None:
    """Return the commit that holds ``source``, with ``-dirty`` when tracked files differ; None when there is none.

    A ``source`` that lies inside a checkout but is not tracked by it (an installed package) has no commit.
    """
    if _git(source.parent, "ls-files", "--error-unmatch", source.name) is None:
        return None
    return _git(source.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
