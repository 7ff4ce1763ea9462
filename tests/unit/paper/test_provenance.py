import hashlib
import json
import subprocess
from pathlib import Path

import mammoclip
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.provenance import collect_provenance, find_git_commit, hash_config, hash_file


def test_every_file_read_has_its_digest(inputs: Inputs, results: Path) -> None:
    provenance = collect_provenance(results, inputs.files, {}, seed=7)
    assert list(provenance.files) == list(inputs.files)
    weights = (results / "pretrain/main-run/model.safetensors").read_bytes()
    assert provenance.files["pretrain/main-run/model.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_the_file_holds_versions_and_seed_but_no_absolute_path(inputs: Inputs, results: Path) -> None:
    text = collect_provenance(results, inputs.files, {}, seed=7).to_json()
    content = json.loads(text)
    assert content["seed"] == 7
    assert content["mammoclip"] == mammoclip.__version__
    assert "polars" in content["packages"]
    assert str(results) not in text
    assert str(Path.home()) not in text


def test_the_configuration_hash_ignores_the_order_of_keys_and_sees_values() -> None:
    assert hash_config({"a": 1, "b": 2}) == hash_config({"b": 2, "a": 1})
    assert hash_config({"a": 1}) != hash_config({"a": 2})


def test_large_files_are_hashed_in_pieces(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(content)
    assert hash_file(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_the_commit_is_marked_when_a_tracked_file_changed(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("x = 1\n", encoding="utf-8")

    def git(*arguments: str) -> None:
        identity = [
            "-c",
            "user.name=n",
            "-c",
            "user.email=e",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "core.hooksPath=none",
        ]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = find_git_commit(source)
    assert clean is not None
    assert len(clean) == 40
    source.write_text("x = 2\n", encoding="utf-8")
    assert find_git_commit(source) == f"{clean}-dirty"


def test_a_package_installed_inside_a_foreign_checkout_has_no_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", str(tmp_path)], check=True, capture_output=True)
    (tmp_path / "installed.py").touch()
    assert find_git_commit(tmp_path / "installed.py") is None


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    (tmp_path / "installed.py").touch()
    assert find_git_commit(tmp_path / "installed.py") is None
