from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from mammoclip.data.index import Indexed, index_dataset
from mammoclip.data.shard import write_shard
from mammoclip.datasets.phantom import generate_cohort
from mammoclip.datasets.phantom_adapter import Phantom
from mammoclip.dicom import Recipe


@dataclass(frozen=True)
class Cohort:
    root: Path
    indexed: Indexed

    @property
    def index(self) -> pl.DataFrame:
        return self.indexed.index


@dataclass(frozen=True)
class Sharded:
    folder: Path
    manifest: pl.DataFrame
    rejects: pl.DataFrame
    recipe: Recipe

    @property
    def tar(self) -> Path:
        return self.folder / "00000.tar"


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Six phantom patients of four images, and five broken files; read only."""
    root = tmp_path_factory.mktemp("phantom")
    generate_cohort(root, num_patients=6, seed=5, rows_px=200, columns_px=128, processes=1)
    return Cohort(root, index_dataset(Phantom(), root, "phantom", None, 1, root / "work"))


@pytest.fixture(scope="session")
def sharded(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    """The cohort as one shard of small PNGs; read only."""
    folder = tmp_path_factory.mktemp("shards")
    recipe = Recipe("strict", "strict", "stretch", 96, 64)
    manifest, rejects = write_shard(cohort.index, cohort.root, "phantom", folder / "00000.tar", recipe, 2, 60.0)
    return Sharded(folder, manifest, rejects, recipe)
