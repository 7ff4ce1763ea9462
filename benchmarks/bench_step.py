"""A training step: ours against the published way, each in a process of its own, for time and largest memory.

The published way: grey repeated to three channels, single precision on a CPU (half precision with loss scaling on a
GPU), all examples of a batch through the encoders at once with their graph, plain AdamW. Ours is what ``pretrain``
runs: one-channel stem, DeepSpeed, freed memory kept (CPU), bf16 and fused AdamW (GPU). Both have the same encoders with
random weights: EfficientNet-B5 at 1520 x 912 and a BERT-base, two images and two texts an example.

The largest batch is that of cached gradients with recomputed activations: memory beside the published way's batch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mammoclip.config import LossWeights, PretrainSection, Run
from mammoclip.models import EfficientNet, MammoClip, normalise
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.models.efficientnet import StaticSameConv2d
from mammoclip.models.text_encoder import text_encoder_from_config
from mammoclip.training import contrastive_loss
from mammoclip.training.batches import Batch
from mammoclip.training.distributed import start_processes
from mammoclip.training.engine import build_engine
from mammoclip.training.step import Stepper

BERT_BASE = {"model_type": "bert", "vocab_size": 28996}
NUM_TOKENS = 256
CUDA = torch.cuda.is_available()


def make_batch(pairs: int, height: int, width: int) -> Batch:
    """Return a batch of noise, as the loader would."""
    draw = torch.Generator().manual_seed(0)
    rows = 2 * pairs
    return Batch(
        torch.randint(0, 256, (rows, height, width), generator=draw, dtype=torch.uint8),
        torch.randint(1, 28996, (rows, NUM_TOKENS), generator=draw),
        torch.ones(rows, NUM_TOKENS, dtype=torch.int64),
        torch.arange(rows),
        torch.arange(rows) % pairs,
    )


def make_model() -> MammoClip:
    """Return the model, in training mode."""
    torch.manual_seed(0)
    return MammoClip(EfficientNet("efficientnet-b5"), text_encoder_from_config(BERT_BASE)).train()


class ThreeChannels(StaticSameConv2d):
    """The stem of an encoder that sees grey images in three channels, one after the other in memory (NCHW)."""

    def __init__(self, out_channels: int) -> None:
        """As EfficientNet-B5's."""
        super().__init__(3, out_channels, 3, image_size_px=456, stride=2)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, 1, H, W) to (B, C, H/2, W/2)."""
        return super().forward(input.expand(-1, 3, -1, -1).contiguous())


def published_step(batch: Batch) -> Callable[[int], object]:
    """Return a step as the published code makes it."""
    device = torch.device("cuda" if CUDA else "cpu")
    model = make_model()
    model.image_encoder._conv_stem = ThreeChannels(model.image_encoder._conv_stem.out_channels)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(enabled=CUDA)

    def step(_: int) -> None:
        part = batch.to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.float16, enabled=CUDA):
            image = model.encode_image(normalise(part.images))
            text = model.encode_text(part.input_ids, part.attention_mask)
        terms = contrastive_loss(*image.float().chunk(2), *text.float().chunk(2), model.logit_scale)
        scaler.scale(terms["loss"]).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def our_step(batch: Batch, precision: str, micro: int | None) -> Callable[[int], object]:
    """Return a step as ``pretrain`` makes it; with ``micro``, gradients are cached and activations recomputed."""
    start_processes()
    keep_freed_memory()
    model = make_model()
    if micro is not None:
        model.image_encoder.checkpoint_activations()
        model.text_encoder.checkpoint_activations()
    section = PretrainSection(datasets=["any"], runs={"any": Run()}, precision=precision)
    size = len(batch) if micro is None else micro
    engine = build_engine(model, section, {"gradient_clipping": 1.0}, size, len(batch) // size)
    stepper = Stepper(engine, LossWeights(), size, 0, 0)
    return lambda number: stepper.train(batch, number)


def measure(args: argparse.Namespace) -> None:
    """Print seconds of the fastest step and the largest memory, as JSON."""
    batch = make_batch(args.pairs, args.height, args.width)
    step = published_step(batch) if args.way == "published" else our_step(batch, args.way, args.micro)
    seconds = []
    for number in range(1 + args.steps):
        start = time.perf_counter()
        step(number)
        if CUDA:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": min(seconds[1:]), "gib": peak / 2**30}))


def in_a_process(args: argparse.Namespace, way: str, pairs: int, micro: int | None = None) -> dict[str, float]:
    """Measure one way in a new process, whose memory is its own."""
    options = ["--way", way, "--pairs", pairs, "--height", args.height, "--width", args.width, "--steps", args.steps]
    options += [] if micro is None else ["--micro", micro]
    command = [sys.executable, __file__, *map(str, options)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    """Print seconds, images per second and memory of each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=["published", "fp32", "bf16"], help="measure this one, in this process")
    parser.add_argument("--pairs", type=int, default=8 if CUDA else 1, help="examples of the batch compared")
    parser.add_argument("--micro", type=int)
    parser.add_argument("--height", type=int, default=1520)
    parser.add_argument("--width", type=int, default=912)
    parser.add_argument("--steps", type=int, default=2, help="steps timed after the first")
    args = parser.parse_args()
    if args.way:
        measure(args)
        return
    where = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}; EfficientNet-B5 at {args.height} x {args.width}, BERT-base, {NUM_TOKENS} tokens")
    cases = [
        ("published", "published", 1, None),
        ("ours, fp32", "fp32", 1, None),
        ("ours, bf16", "bf16", 1, None),
        ("ours, fp32, cached gradients", "fp32", 4, args.pairs),
    ]
    base: dict[str, float] = {}
    for name, way, times, micro in cases:
        pairs = times * args.pairs
        told = in_a_process(args, way, pairs, micro)
        base = base or told
        images = 2 * pairs / told["seconds"]
        faster = images / (2 * args.pairs / base["seconds"])
        print(
            f"  {name:30}{pairs:4} examples{told['seconds']:8.1f} s{images:8.3f} images/s{faster:6.2f}x"
            f"{told['gib']:7.1f} GiB ({told['gib'] / base['gib']:.2f} of published)"
        )


if __name__ == "__main__":
    main()
