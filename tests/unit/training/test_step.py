from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mammoclip.config import LossWeights
from mammoclip.errors import ConfigError
from mammoclip.models import EfficientNet, MammoClip
from mammoclip.models.text_encoder import text_encoder_from_config
from mammoclip.training.batches import batch_sizes
from mammoclip.training.objective import contrastive_loss
from mammoclip.training.step import Stepper, unchanged_statistics

HERE = Path(__file__).parent
OBJECTIVES = ("multi_view", "convirt", "siglip")
ZERO = (0, 1, 2, 3)
WHOLE = {objective: f"{objective}-0-8" for objective in OBJECTIVES}
RUNS = {  # processes -> objective, ZeRO stage, size of micro-batches
    1: [*WHOLE.values(), *(f"multi_view-0-{micro}" for micro in (4, 2, 1)), "siglip-0-2"],
    2: [
        *(f"{objective}-0-4" for objective in OBJECTIVES),
        *(f"multi_view-{stage}-{micro}" for stage in ZERO for micro in (4, 2)[stage == 0 :]),
        *(f"siglip-{stage}-2" for stage in (0, 3)),
    ],
}
CASES = [(processes, case) for processes, cases in RUNS.items() for case in cases if case not in WHOLE.values()]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights after one step on one global batch, embedded in parts of several sizes by one and two processes."""
    out = tmp_path_factory.mktemp("steps")
    for processes, cases in RUNS.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [sys.executable, str(HERE / "step_process.py"), str(out), *cases]
        running = []
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_PORT": port}
            environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", **own}
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        stories = [process.communicate(timeout=150)[0].decode() for process in running]
        assert [process.returncode for process in running] == [0] * processes, stories[0][-3000:]
    return out


def weights(steps: Path, processes: int, case: str) -> dict[str, torch.Tensor]:
    return load_file(steps / f"{processes}-{case}.safetensors")


@pytest.mark.parametrize(("processes", "case"), CASES)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(steps: Path, processes: int, case: str) -> None:
    objective = WHOLE[case.split("-", maxsplit=1)[0]]
    whole, parts = weights(steps, 1, objective), weights(steps, processes, case)
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 1e-5
    if processes == 1:  # the terms of two processes are those of their own rows
        terms = [json.loads((steps / f"1-{name}.json").read_text()) for name in (objective, case)]
        assert terms[1] == pytest.approx(terms[0], rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_step_moved_every_weight_that_it_can_reach(steps: Path, objective: str) -> None:
    """The control: equal weights would also come of no step at all."""
    sys.path.insert(0, str(HERE))
    from step_process import make_model

    model = make_model(objective)
    before, after = model.state_dict(), weights(steps, 1, WHOLE[objective])
    assert sum(not torch.equal(before[name], after[name]) for name in after) > 0.5 * len(after)
    scalars = ["logit_scale", "logit_bias"] if objective == "siglip" else ["logit_scale"]
    assert [name for name in scalars if torch.equal(before[name], after[name])] == []


class Engine:
    """What DeepSpeed's engine does in one process with accumulation: backward divides, step waits for the last part."""

    def __init__(self, module: nn.Module, num_parts: int) -> None:
        self.module, self.num_parts, self.device = module, num_parts, torch.device("cpu")

    def __call__(self, *inputs: torch.Tensor) -> Any:
        return self.module(*inputs)

    def backward(self, loss: torch.Tensor) -> None:
        (loss / self.num_parts).backward()

    def step(self) -> None:
        pass


def test_dropout_is_the_same_when_a_part_is_embedded_again_and_statistics_are_updated_once() -> None:
    """Against the parts embedded once, with graph, by the same seeds, and one loss over all of them."""
    sys.path.insert(0, str(HERE))
    from step_process import BERT, make_batch

    batch = make_batch(0, 1)
    models = []
    for cached in (True, False):
        torch.manual_seed(1)
        model = MammoClip(EfficientNet("efficientnet-lite0"), text_encoder_from_config(BERT), embedding_dim=8).train()
        stepper = Stepper(Engine(model, 4), LossWeights(), 2, 7, 0)
        if cached:
            stepper.train(batch, 3)
        else:
            embedded = [stepper._embed(part, 3, number) for number, part in enumerate(batch.parts(2))]
            images, texts = (
                [torch.cat([part[kind].chunk(2)[view] for part in embedded]) for view in (0, 1)] for kind in (0, 1)
            )
            contrastive_loss(*images, *texts, model.logit_scale)["loss"].backward()
        models.append(model)
    one, other = (torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in models)
    assert float((one - other).norm() / other.norm()) < 1e-4  # batch statistics of two examples are ill-conditioned
    for (name, cached_buffer), buffer in zip(models[0].named_buffers(), models[1].buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(cached_buffer, buffer, msg=name)


def test_statistics_are_restored_after_an_error() -> None:
    layer = nn.BatchNorm2d(2, momentum=0.3)
    with pytest.raises(RuntimeError, match="now"), unchanged_statistics(layer):
        layer(torch.randn(4, 2, 3, 3))
        raise RuntimeError("now")
    assert layer.momentum == 0.3 and layer.running_mean is not None and not layer.running_mean.any()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((8, None, 1), (8, 8)), ((8, None, 2), (4, 4)), ((512, 16, 4), (128, 16)), ((8, 8, 1), (8, 8))],
)
def test_sizes_of_a_process_follow_from_the_global_batch(sizes: Any, expected: tuple[int, int]) -> None:
    assert batch_sizes(*sizes) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((10, None, 4), r"10 examples over 4 processes are 2\.50 each; choose a multiple of 4"),
        ((2, None, 4), r"2 examples over 4 processes are 0\.50 each"),
        ((16, 3, 2), r"the 8 examples of a process \(16 / 2\) are 2\.67 times 3; choose a divisor of 8"),
        ((16, 16, 2), r"are 0\.50 times 16"),
    ],
)
def test_sizes_that_do_not_divide_show_the_arithmetic(sizes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        batch_sizes(*sizes)


def test_parts_of_a_batch_keep_first_and_second_views_apart() -> None:
    sys.path.insert(0, str(HERE))
    from step_process import make_batch

    batch = make_batch(0, 1)
    parts = batch.parts(3)
    assert [len(part) for part in parts] == [3, 3, 2]
    for view in (0, 1):
        assert torch.equal(torch.cat([part.images.chunk(2)[view] for part in parts]), batch.images.chunk(2)[view])
        assert torch.equal(torch.cat([part.text_ids.chunk(2)[view] for part in parts]), batch.text_ids.chunk(2)[view])
