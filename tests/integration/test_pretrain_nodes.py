"""Two agents of torchrun as the two nodes of a run, one process each, as srun starts them under SLURM."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
from safetensors.torch import load_file

from tests.integration.test_pretrain_faults import ENVIRONMENT, run_two, write_jobs

SECTION = {"global_batch_size": 4, "num_epochs": 1}


def start_node(port: int, command: list[str]) -> subprocess.Popen[str]:
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-id", "7", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *rendezvous]
    command = [sys.executable, *launcher, *command]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_two_nodes_of_one_process_train_as_one_node_of_two(tmp_path: Path) -> None:
    command = write_jobs(tmp_path, [{"folder": "nodes", "section": SECTION}])
    port = free_port()
    nodes = [start_node(port, command) for _ in range(2)]
    try:
        told = [node.communicate(timeout=120)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], told

    assert run_two(tmp_path, [{"folder": "processes", "section": SECTION}]).returncode == 0
    found, expected = tmp_path / "nodes", tmp_path / "processes"
    for rank in range(2):
        steps = pl.read_parquet(found / f"steps-{rank}.parquet")
        assert steps.equals(pl.read_parquet(expected / f"steps-{rank}.parquet")) and len(steps) > 1
        weights, others = (load_file(folder / f"{rank}.safetensors") for folder in (found, expected))
        assert all(weights[name].equal(others[name]) for name in others)
