"""One process of a training step: ``step_process.py OUT CASE...`` makes a step for each case.

A case is ``<objective>-<ZeRO stage>-<size of micro-batch>``. A global batch of 8 examples, plain gradient descent,
DeepSpeed. The weights after each step go to ``OUT/<processes>-<case>.safetensors``, the terms of the loss to ``.json``
beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mammoclip.config import LossWeights
from mammoclip.models import EfficientNet, MammoClip
from mammoclip.models.text_encoder import text_encoder_from_config
from mammoclip.training.batches import Batch
from mammoclip.training.distributed import start_processes, stop_processes
from mammoclip.training.engine import whole_weights
from mammoclip.training.step import Stepper

NUM_EXAMPLES = 8
BERT = {"model_type": "bert", "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 8}  # fmt: skip


def make_batch(rank: int, world_size: int) -> Batch:
    """This process's examples of the one global batch."""
    draw = torch.Generator().manual_seed(0)
    whole = Batch(
        torch.randint(0, 256, (2 * NUM_EXAMPLES, 32, 32), generator=draw, dtype=torch.uint8),
        torch.randint(1, 50, (2 * NUM_EXAMPLES, 6), generator=draw),
        torch.ones(2 * NUM_EXAMPLES, 6, dtype=torch.int64),
        torch.arange(2 * NUM_EXAMPLES) % 5,  # some texts are equal
        torch.arange(2 * NUM_EXAMPLES) % NUM_EXAMPLES % 6,  # two patients have two examples
    )
    return whole.parts(NUM_EXAMPLES // world_size)[rank]


def make_model(objective: str) -> MammoClip:
    torch.manual_seed(1)
    return MammoClip(
        EfficientNet("efficientnet-lite0"),
        text_encoder_from_config(BERT),
        embedding_dim=8,
        sigmoid_loss=objective == "siglip",
    )


def make_step(case: str, rank: int, world_size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    import deepspeed

    objective, stage, micro = case.split("-")
    model = make_model(objective)
    config = {
        "train_micro_batch_size_per_gpu": int(micro),
        "gradient_accumulation_steps": NUM_EXAMPLES // world_size // int(micro),
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": int(stage)},
        "zero_allow_untested_optimizer": True,  # weights show the gradient itself after a step of plain descent
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.eval()  # neither dropout nor statistics of the batch: nothing but the step is under test
    loss = LossWeights(objective=objective, mask_equal_texts=True, mask_same_patient=True)
    terms = Stepper(engine, loss, int(micro), 7, rank).train(make_batch(rank, world_size), 0)
    return whole_weights(engine), {name: float(term) for name, term in terms.items()}


def main(out: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    rank, world_size = start_processes()
    for case in cases:
        weights, terms = make_step(case, rank, world_size)
        if rank == 0:
            save_file(weights, out / f"{world_size}-{case}.safetensors")
            (out / f"{world_size}-{case}.json").write_text(json.dumps(terms))
    stop_processes()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
