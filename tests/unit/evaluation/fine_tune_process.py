"""A small fine-tuning, whole or as one of two processes: ``fine_tune_process.py OUT PORT RANK``.

What process RANK finds goes to ``OUT/RANK.npz``.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from mammoclip.config import Augmentation, FineTuneSection
from mammoclip.evaluation.fine_tune import FineTuneJob, LabelledImages, Tuned, fine_tune
from mammoclip.models import EfficientNet, LoadedModel, MammoClip, TimmEncoder
from mammoclip.models.text_encoder import text_encoder_from_config

SIZE_PX = (32, 32)
BERT = {"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 8}  # fmt: skip


def make_model(encoder: str = "timm:test_vit") -> LoadedModel:
    """A random model; the transformer has neither dropout nor batch norms."""
    torch.manual_seed(0)
    timm = encoder.removeprefix("timm:")
    image_encoder = EfficientNet(encoder) if timm == encoder else TimmEncoder(timm, SIZE_PX)
    clip = MammoClip(image_encoder, text_encoder_from_config(BERT), embedding_dim=8)
    return LoadedModel(clip.eval(), tokenizer=None, image_size_px=SIZE_PX, metadata={})


def read_image(image_id: str) -> np.ndarray:
    """``<number>-<class>``: noise with a square, as much brighter as the class says."""
    number, shade = map(int, image_id.split("-"))
    rng = np.random.default_rng(number)
    image = rng.integers(90, 160, SIZE_PX)
    top, left = rng.integers(0, 20, 2)
    image[top : top + 12, left : left + 12] += 80 * shade - 60
    return image.astype(np.uint8)


def labelled(number: int, first: int = 0, num_classes: int = 2) -> LabelledImages:
    """Images of all classes in turn."""
    labels = np.arange(number) % num_classes
    return LabelledImages([f"{first + row}-{label}" for row, label in enumerate(labels)], labels)


def make_job(work: Path, **changes: object) -> FineTuneJob:
    """Fine-tuning of a separable problem; what ``changes`` name is of the job, or else of its section."""
    of_job = {name: changes.pop(name) for name in list(changes) if name in FineTuneJob.__dataclass_fields__}
    mild = Augmentation(rotation_deg=5.0, scale_range=(0.95, 1.05), shear_deg=2.0, elastic_alpha_px=0.0)
    section = {"num_epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "augmentation": mild, **changes}
    parts = {"train": labelled(32), "validation": labelled(16, 100), "test": labelled(18, 200)}
    fixed = {"num_classes": 2, "read_image": read_image, "trains_encoder": True, "mode": "strict", "seed": 3}
    return FineTuneJob(section=FineTuneSection(**section), work=work, **(parts | fixed | of_job))


def small_fine_tuning(work: Path, rank: int = 0, world_size: int = 1) -> Tuned:
    """What is compared: of three classes that are not equally frequent; 7 test images cannot be shared equally."""
    labels = np.array([0] * 16 + [1] * 10 + [2] * 6)
    train = LabelledImages([f"{row}-{label}" for row, label in enumerate(labels)], labels)
    parts = {"train": train, "validation": labelled(12, 100, 3), "test": labelled(7, 200, 3)}
    return fine_tune(make_model(), make_job(work, num_classes=3, rank=rank, world_size=world_size, **parts))


def run_process(out: Path, port: int, rank: int) -> None:
    """Take part in a fine-tuning by two processes."""
    timeout = timedelta(seconds=100)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", timeout, world_size=2, rank=rank)
    try:
        tuned = small_fine_tuning(out / "work", rank, 2)
    finally:
        dist.destroy_process_group()
    epochs = np.array([(epoch.loss, epoch.score) for epoch in tuned.epochs])
    np.savez(out / f"{rank}.npz", validation=tuned.validation, test=tuned.test, epochs=epochs)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_process(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
