"""Processes of one training run: start-up, and gathering embeddings with gradient."""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mammoclip.errors import ConfigError

_LOST_AFTER = timedelta(minutes=10)  # far above what one process lets the others wait for: a checkpoint, the scores


def check_gpus(wanted: int) -> None:
    """Raise ``ConfigError`` if this machine shows fewer GPUs than a run is to have on it."""
    visible = torch.cuda.device_count()
    if wanted > visible:
        raise ConfigError(
            f"pretrain.gpus is {wanted}, but {socket.gethostname()} shows {visible}; lower it (0: train on the CPU), "
            "or let more be visible (CUDA_VISIBLE_DEVICES, and what SLURM gives the job)"
        )


def start_processes() -> tuple[int, int]:
    """Initialise DeepSpeed's communication and return (rank, number of processes).

    Under a launcher (torchrun, srun with torchrun) its environment is used; without one this is a single process.
    A process that waits ten minutes for another one takes it for lost and ends.

    Raises:
        ConfigError: if DeepSpeed cannot be imported.
    """
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")  # otherwise it guesses, and warns of its guess
    try:
        import deepspeed  # noqa: PLC0415  (seconds to import, and only training needs it)
    except ImportError as error:
        raise ConfigError(f"pretraining needs DeepSpeed ({error}); pip install deepspeed") from error

    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        # DeepSpeed would compile a shared-memory extension (50 s, needs a compiler) that gloo does not need.
        sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    backend = "nccl" if cuda else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=_LOST_AFTER)
    return dist.get_rank(), dist.get_world_size()


def stop_processes() -> None:
    """Wait for all processes, then end the communication that ``start_processes`` began."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def decide_together(value: int) -> int:
    """Return the value of process 0 in every process: what must not differ, such as a clock's verdict, is its alone."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    decided = torch.tensor([value], device="cuda" if torch.cuda.is_available() else "cpu")
    dist.broadcast(decided, 0)
    return int(decided)


def largest_over_processes(value: int) -> int:
    """Return the largest value of all processes, in every process: what one is asked to do, all do."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    largest = torch.tensor([value], device="cuda" if torch.cuda.is_available() else "cpu")
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of ``values`` over all processes, without gradient."""
    mean = values.detach().clone()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean


def gather_with_gradient(local: Tensor) -> Tensor:
    """Concatenate ``local`` (B x ...) of all processes in rank order to N x ..., with gradient.

    The backward pass sums the gradients of all processes for the local rows. Data-parallel training then *averages*
    parameter gradients over processes, which makes the update equal to one process with the global batch when every
    process takes the mean of its own rows as its loss.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    gathered: Tensor = _Gather.apply(local)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.num_rows = len(local)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # A copy: autograd may hand the same tensor to others, and the sum is made in place.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.num_rows
        return total[first : first + ctx.num_rows]
