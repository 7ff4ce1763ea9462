from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

from mammoclip.documentation import TABLES, generated_files

ROOT = Path(__file__).parents[2]
GENERATED = generated_files(ROOT)


@pytest.mark.parametrize("path", list(GENERATED), ids=str)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path], "run python -m mammoclip.documentation"


def test_every_table_and_column_is_described() -> None:
    prose = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert len(TABLES) >= 12
    for table in TABLES:
        section = prose.split(f"### `{table.name}`, version {table.version}")[1].split("###")[0]
        assert all(f"| `{name}` |" in section for name in table.columns)


def test_conda_users_get_the_dependencies_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["slurm"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert sorted(pip) == sorted(requirement.split(";")[0].strip() for requirement in wanted)
    assert pip[0].startswith("torch=="), "torch first, so that no other package asks for another build"


def test_the_lock_holds_a_version_of_every_dependency_within_its_bounds() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    by_name = {name.lower().replace("_", "-"): version for name, version in locked.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in project["dependencies"] + extras["dev"] + extras["slurm"]:
        requirement = Requirement(text)
        assert by_name[requirement.name.lower().replace("_", "-")] in requirement.specifier, text
