"""What communication costs at 8, 64 and 512 GPUs: on paper, by simulation, and one real collective to check the model.

Two towers as in the paper (EfficientNet-B5, BERT-base). ``docs/scaling.md`` has the formulas and what the tables mean.
No GPU is needed: ``--step-seconds`` takes a measured step of one GPU; without it several times are assumed. The last
part runs two processes with gloo on this machine (2 GB); ``--no-measurement`` leaves it out.

    python benchmarks/bench_scaling.py [--step-seconds 0.5] [--per-gpu-batch 8] [--inter-node-gbps 200]
"""

from __future__ import annotations

import argparse
import tempfile
import timeit
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from mammoclip.models import EfficientNet, MammoClip
from mammoclip.models.text_encoder import text_encoder_from_config
from mammoclip.training.distributed import gather_with_gradient

GPUS, FIXED_BATCH = (8, 64, 512), 4096
NODE = 8  # GPUs
DIM, VIEWS, IDS, PAIRINGS = 512, 4, 3, 12  # views and identities are gathered; a pairing is a matrix of logits
BERT = {"model_type": "bert", "vocab_size": 28996}  # Bio_ClinicalBERT; all else is the default: 12 layers of 768
STAGES = ("ZeRO 0", "ZeRO 1", "ZeRO 2", "ZeRO 3")
GATHERS = 576, 257  # calls of ZeRO 3 for all weights, counted in two processes: one micro-batch a step, several
FORWARD_SHARE = 1 / 3  # of a step, assumed: what gradient caching adds
LOSS_FLOPS = 1e13  # a second, assumed: the loss is fp32


class Sizes(NamedTuple):
    """Parameters of the model: all, and those that DeepSpeed sends in bf16 under autocast."""

    total: int
    halved: int


def count_parameters(model: nn.Module) -> Sizes:
    """DeepSpeed halves what belongs to exactly these classes; subclasses of them and embeddings stay fp32."""
    owners = [module for module in model.modules() if type(module) in (nn.Linear, nn.Conv2d)]
    halved = sum(p.numel() for module in owners for p in module.parameters(recurse=False))
    return Sizes(sum(p.numel() for p in model.parameters()), halved)


class Network(NamedTuple):
    """Bytes and seconds: rate of a GPU within its node and of a whole node's network, latency of a message in each."""

    intra: float
    inter: float
    intra_latency: float
    inter_latency: float

    def flat(self, gpus: int, size: float, rounds: int) -> float:
        """One ring over all: a chunk a step, ``rounds`` times round (1 gathers or reduce-scatters, 2 all-reduce)."""
        latency, rate = self.hops(gpus)
        hops = size / gpus / rate
        return float(rounds * (gpus - 1) * max(hops.max(), (latency + hops).mean()))

    def hierarchical(self, gpus: int, size: float, rounds: int) -> float:
        """Rings within nodes, and between nodes one ring for each GPU of a node, which share its network."""
        inside, nodes = min(gpus, NODE), -(-gpus // NODE)
        within = (inside - 1) * (self.intra_latency + size / inside / self.intra)
        return rounds * (within + (nodes - 1) * (self.inter_latency + size / nodes / self.inter))

    def hops(self, gpus: int) -> tuple[np.ndarray, np.ndarray]:
        """Latency and rate of the links of one ring over all GPUs; link r leads from rank r to the next."""
        crossing = (np.arange(gpus) % NODE == NODE - 1) & (gpus > NODE)
        return np.where(crossing, self.inter_latency, self.intra_latency), np.where(crossing, self.inter, self.intra)


class Collective(NamedTuple):
    """``calls`` of one kind in a step, together of ``size`` bytes; the size is that of the whole, not of a part."""

    name: str
    size: float
    rounds: int
    calls: int

    def sent(self, gpus: int) -> float:
        """Bytes that a GPU sends in a ring."""
        return self.rounds * (gpus - 1) / gpus * self.size

    def seconds(self, network: Network, gpus: int) -> float:
        """All calls, one after the other, each the faster way, as communication libraries choose."""
        call = gpus, self.size / self.calls, self.rounds
        return self.calls * min(network.flat(*call), network.hierarchical(*call))


def embedding_collectives(batch: int) -> list[Collective]:
    """Those of the loss over a global batch, all fp32, and of log and stopping."""
    return [
        Collective("embeddings, forward: all-gather", VIEWS * batch * DIM * 4, 1, VIEWS),
        Collective("embeddings, backward: all-reduce", VIEWS * batch * DIM * 4, 2, VIEWS),
        Collective("identities: all-gather", IDS * batch * 8, 1, IDS),
        Collective("log and stop: all-reduce", 40, 2, 2),
    ]


def weight_collectives(sizes: Sizes, stage: int, parts: int) -> list[Collective]:
    """What DeepSpeed 0.19 does with ``parts`` micro-batches a step in bf16, under our files in ``workflow``."""
    full = sizes.total * 4
    mixed = full - 2 * sizes.halved
    if stage == 0:
        return [Collective("gradients: all-reduce", full, 2, 1)]
    if stage < 3:
        times = parts if stage == 2 else 1
        reduction = Collective("gradients: all-reduce", times * mixed, 2, 2 * times)
        return [reduction, Collective("weights: all-gather", full, 1, 2)]
    gathers = 1 if parts == 1 else 3 * parts  # passes: without graph, forward, backward
    scatter = Collective("gradients: reduce-scatter", parts * mixed, 1, 2 * parts)
    return [scatter, Collective("weights: all-gather", gathers * mixed, 1, gathers * GATHERS[parts > 1])]


def walk(start: np.ndarray, predecessor: np.ndarray, chunk: float, steps: int, latency, rate) -> np.ndarray:
    """Return when each rank has its last chunk; in each step it passes on what it got in the one before."""
    have, free = start, np.zeros(len(start))
    for _ in range(steps):
        free = np.maximum(have, free) + chunk / rate  # a link carries one chunk after the other
        have = (free + latency)[predecessor]
    return have


def simulate(network: Network, gpus: int, size: float, way: str, late: float = 0.0, slow: float = 1.0) -> float:
    """All-reduce by its schedule; the last GPU begins ``late`` s, the last node's network is ``slow`` times slower."""
    ranks, node, nodes = np.arange(gpus), min(gpus, NODE), -(-gpus // NODE)
    start = np.where(ranks == gpus - 1, late, 0.0)
    if way == "flat":
        latency, rate = network.hops(gpus)
        rate = np.where((ranks == gpus - 1) & (nodes > 1), rate / slow, rate)
        return float(walk(start, (ranks - 1) % gpus, size / gpus, 2 * (gpus - 1), latency, rate).max())
    inside = ranks // node * node + (ranks - 1) % node
    rate = np.where(ranks // node == nodes - 1, network.inter / slow, network.inter) / node
    within = inside, size / node, node - 1, network.intra_latency, network.intra
    between = (ranks - node) % gpus, size / node / nodes, 2 * (nodes - 1), network.inter_latency, rate
    return float(walk(walk(walk(start, *within), *between), *within).max())  # one node: no steps between


def print_bytes(own: int, sizes: Sizes, network: Network) -> None:
    """Per GPU and step, at the same batch per GPU."""
    print(f"\nPer GPU and step, {own} examples a GPU: MB sent, and ms (*)")
    print(f"{'':42}" + "".join(f"{gpus:>14} GPUs" for gpus in GPUS))
    rows = [("", [embedding_collectives(gpus * own) for gpus in GPUS])]
    rows += [(f"{name}, ", [weight_collectives(sizes, k, 1)] * len(GPUS)) for k, name in enumerate(STAGES)]
    for title, columns in rows:
        for same in zip(*columns, strict=True):
            cells = [(c.sent(gpus) / 1e6, 1e3 * c.seconds(network, gpus)) for c, gpus in zip(same, GPUS, strict=True)]
            print(f"{title + same[0].name:42}" + "".join(f"  {mb:9.2f}{ms:8.2f}" for mb, ms in cells))
    equal = 8 * sizes.total / (12 * VIEWS * DIM)
    print(f"embeddings send as many bytes as ZeRO 0 at a global batch of {equal:,.0f}")
    for batch in (GPUS[-1] * own, 65536):
        rows_of_gpu = batch // GPUS[-1]
        logits = PAIRINGS * rows_of_gpu * batch  # 2 flops per dimension forward, 4 backward
        print(f"logits, {rows_of_gpu} x {batch}: {6 * logits * DIM / 1e9:.1f} GFLOP a step, {4 * logits / 1e6:.1f} MB")


def print_efficiency(args: argparse.Namespace, sizes: Sizes, network: Network, step: float, global_batch: int) -> None:
    """Seconds of a step and the share of computing in them; ``global_batch`` 0: it grows with the GPUs."""
    for gpus in GPUS:
        own = global_batch // gpus or args.per_gpu_batch
        parts = max(1, own // args.per_gpu_batch)
        compute = step * own / args.per_gpu_batch * (1 + FORWARD_SHARE * (parts > 1))
        loss = 6 * PAIRINGS * own * (own * gpus) * DIM / LOSS_FLOPS
        fixed = loss + sum(c.seconds(network, gpus) for c in embedding_collectives(own * gpus))
        cells = []
        for stage, hidden in ((0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (2, args.hidden)):
            reduction, *others = (c.seconds(network, gpus) for c in weight_collectives(sizes, stage, parts))
            total = compute + fixed + sum(others) + (1 - hidden) * reduction
            cells.append(f"{total:7.2f} s{compute / total:5.0%}")
        print(f"{step:7.2f}{gpus:6}{own * gpus:8}{own:6}{parts:6}  " + "".join(cells))


def print_simulation(size: float, network: Network) -> None:
    """All-reduce of the gradients: formula and walked schedule."""
    print("\nAll-reduce of fp32 gradients, ms: formula, walked, one GPU 50 ms late, one node's network at half rate")
    for way in ("flat", "hierarchical"):
        for gpus in GPUS:
            formula = getattr(network, way)(gpus, size, 2)
            walked = [simulate(network, gpus, size, way, *odd) for odd in ((), (0.05,), (0.0, 2.0))]
            cells = "".join(f"{1e3 * seconds:9.2f}" for seconds in (formula, *walked))
            print(f"  {way:13}{gpus:5} GPUs{cells}   difference {walked[0] / formula - 1:+.1%}")


def measure(rank: int, meeting: str, num_parameters: int, batch: int) -> None:
    """One of two processes: fit latency and rate to two small sizes, then measure what our training sends."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", meeting, rank=rank, world_size=2)
    cases = (
        ("embeddings: all-gather", gather_with_gradient, [rows * DIM for rows in (batch // 8, batch // 2, batch)], 200),
        ("gradients: all-reduce", dist.all_reduce, [num_parameters // 64, num_parameters // 8, num_parameters], 5),
    )
    for name, act, sizes, repeats in cases:
        seconds = []
        for size in sizes:
            call = partial(act, torch.zeros(size))
            times = timeit.repeat(call, dist.barrier, number=1, repeat=repeats + 1)
            seconds.append(np.median(times[1:]))  # the first warms up
        sent = 4 * np.array(sizes)  # of two processes each sends as much as it has
        slope, latency = np.polyfit(sent[:2], seconds[:2], 1)
        expected = latency + slope * sent[2]
        if rank == 0:
            print(f"  {name:24}{sent[2] / 1e6:7.2f} MB sent, ms measured {1e3 * seconds[2]:.2f}", end="")
            print(f", expected {1e3 * expected:.2f} ({seconds[2] / expected - 1:+.0%})", end="")
            print(f" from {np.round(sent[:2] / 1e6, 2)} MB: {1e-9 / slope:.2f} GB/s")
    dist.destroy_process_group()


def main() -> None:
    """Print bytes, seconds and efficiency, the simulation, and the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-seconds", type=float, help="measured, of one GPU with --per-gpu-batch examples")
    parser.add_argument("--per-gpu-batch", type=int, default=8)
    parser.add_argument("--intra-node-gbps", type=float, default=2400.0, help="Gbit/s of a GPU, one way")
    parser.add_argument("--inter-node-gbps", type=float, default=200.0, help="Gbit/s of a node, one way")
    parser.add_argument("--latency-us", type=float, nargs=2, default=(3.0, 10.0), help="within and between nodes")
    parser.add_argument("--hidden", type=float, default=0.7, help="share of ZeRO 2's all-reduce, in the last column")
    parser.add_argument("--no-measurement", action="store_true")
    args = parser.parse_args()
    intra, inter, latencies = args.intra_node_gbps, args.inter_node_gbps, args.latency_us
    network = Network(intra * 1e9 / 8, inter * 1e9 / 8, latencies[0] * 1e-6, latencies[1] * 1e-6)
    with torch.device("meta"):
        sizes = count_parameters(MammoClip(EfficientNet("efficientnet-b5"), text_encoder_from_config(BERT), DIM))
    print(f"{sizes.total} parameters, {sizes.halved} of them sent in bf16")
    print(f"(*) assumed: {intra:g} Gbit/s a GPU in a node of {NODE}, {inter:g} a node;", end=" ")
    print("{:g} and {:g} us a message".format(*latencies))
    print_bytes(args.per_gpu_batch, sizes, network)
    steps = (args.step_seconds,) if args.step_seconds else (0.2, 0.5)
    source = "measured" if args.step_seconds else "ASSUMED, not measured"
    for title, batch in (("Weak scaling", 0), (f"Strong scaling, {FIXED_BATCH} examples", FIXED_BATCH)):
        print(f"\n{title}: seconds of a step and efficiency; seconds of one GPU are {source}")
        titles = "".join(f"{column:>14}" for column in (*STAGES, f"{args.hidden:.0%} hidden"))
        print(f"{'1 GPU':>7}{'GPUs':>6}{'batch':>8}{'own':>6}{'parts':>6}  {titles}")
        for step in steps:
            print_efficiency(args, sizes, network, step, batch)
    print_simulation(4 * sizes.total, network)
    if not args.no_measurement:
        print("\nMeasured: two processes on this machine, gloo")
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(measure, (f"file://{folder}/meeting", sizes.total, 128), nprocs=2)


if __name__ == "__main__":
    main()
