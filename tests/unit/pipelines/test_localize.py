"""Checkpoints of the stage ``localize``: what goes on from them, and what does not."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from mammoclip.config import LocalizeSection
from pipelines import train_detector, train_factor

TABLES = ("images", "findings", "attributes", "labels")
ROW = {"datasets": ["ours"], "targets": ["mass"], "protocols": ["detection-frozen"]}


def test_another_detector_does_not_go_on_from_a_checkpoint_and_another_row_of_the_matrix_does(tmp_path: Path) -> None:
    for name in (*TABLES, "model.safetensors"):
        (tmp_path / name).write_bytes(b"")

    def folder(seed: int = 0, target: str = "mass", **options: Any) -> Path:
        section = LocalizeSection.model_validate({"detection": {"matrix": [ROW], **options}})
        tables = {name: tmp_path / name for name in TABLES}
        cell = {"target": target, "protocol": "detection-frozen", "fraction": 1.0, "seed": seed}
        paths = {"model": tmp_path, "work": tmp_path / "work"}
        return train_detector.work_folder(Namespace(config=section, **paths, **tables, **cell))

    first = folder()
    assert folder(matrix=[ROW, {**ROW, "seeds": [1]}]) == first
    others = [folder(seed=1), folder(target="asymmetry"), folder(height_px=512)]
    (tmp_path / "findings").write_bytes(b"other boxes")
    others.append(folder())
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert len({first, *others, folder()}) == 6


def test_mammo_factor_of_another_model_or_setting_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    tables = tmp_path / "tabulate" / "ours"
    tables.mkdir(parents=True)
    for name in ("images", "attributes", "labels", "reports"):
        (tables / f"{name}.parquet").write_bytes(b"")
    (tmp_path / "model.safetensors").write_bytes(b"")

    def folder(seed: int = 0, **options: Any) -> Path:
        section = LocalizeSection.model_validate({"factor": options})
        paths = {"results": tmp_path, "model": tmp_path, "work": tmp_path / "work"}
        return train_factor.work_folder(Namespace(config=section, dataset="ours", seed=seed, **paths))

    first = folder()
    assert folder(datasets=["ours", "theirs"]) == first
    others = [folder(seed=1), folder(hidden=8), folder(prompts={"mass": ["a lump"]})]
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert len({first, *others, folder()}) == 5
