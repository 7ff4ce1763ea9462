"""The command of pretraining, up to where training would begin."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from torch.distributed.run import get_args_parser

from mammoclip.config import PretrainSection, Run
from pipelines.pretrain import work_folder


def test_a_deepspeed_file_that_is_no_json_is_refused_before_any_training(tmp_path: Path) -> None:
    deepspeed = tmp_path / "zero3.json"
    deepspeed.write_text("{", encoding="utf-8")
    section = {"datasets": ["ours"], "runs": {"main": {}}, "deepspeed": str(deepspeed)}
    command = [
        "--config",
        json.dumps(section),
        "--run",
        "main",
        "--adapters",
        "{}",
        "--seed",
        "0",
        "--results",
        str(tmp_path),
    ]
    finished = subprocess.run(
        [sys.executable, "-m", "pipelines.pretrain", *command, "--out", str(tmp_path), "--log", str(tmp_path / "log")],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 1
    assert f"pretrain.deepspeed: {deepspeed} is not a readable JSON file" in finished.stderr


def test_other_data_or_settings_get_another_work_folder_and_so_no_old_checkpoint(tmp_path: Path) -> None:
    images = tmp_path / "tabulate" / "ours" / "images.parquet"
    images.parent.mkdir(parents=True)
    images.write_bytes(b"one table")
    deepspeed = tmp_path / "zero0.json"
    deepspeed.write_text("{}", encoding="utf-8")

    def folder(**options: object) -> Path:
        section = PretrainSection(datasets=["ours"], runs={"main": Run()}, deepspeed=str(deepspeed), **options)
        return work_folder(argparse.Namespace(config=section, seed=0, results=tmp_path, out=tmp_path / "main"))

    first = folder()
    assert folder() == first
    assert folder(num_epochs=3) != first
    assert folder(nodes=2, gpus=4, micro_batch_size=2, checkpoint_minutes=1.0) == first  # goes on elsewhere
    deepspeed.write_text('{"zero_optimization": {"stage": 2}}', encoding="utf-8")
    assert folder() == first
    deepspeed.write_text('{"gradient_clipping": 1.0}', encoding="utf-8")
    assert folder() != first
    deepspeed.write_text("{}", encoding="utf-8")
    images.write_bytes(b"another table")
    assert folder() != first


def test_torchrun_leaves_the_arguments_of_the_stage_alone_after_two_dashes() -> None:
    stage = ["pipelines.pretrain", "--config", "{}", "--run", "main", "--log", "main.log"]
    launched = get_args_parser().parse_args(["--nnodes", "2", "-m", "--", *stage])  # without: --run is ambiguous
    assert launched.module and [launched.training_script, *launched.training_script_args] == stage
