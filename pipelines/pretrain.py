"""Stage ``pretrain``: one run, main or control."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
from pathlib import Path

import polars as pl
import torch

from mammoclip.artifacts import BREASTS, IMAGES, STEPS, read_table, write_table, write_text
from mammoclip.config import PretrainSection, resolve_source
from mammoclip.data.augmentation import AugmentationStrength
from mammoclip.data.pairs import PairSampler, shuffle_texts, trainable_breasts
from mammoclip.data.reader import ImageSource, ShardReader
from mammoclip.errors import ConfigError
from mammoclip.models import ImageEncoderSpec, TextEncoderSpec, build_model, load_tokenizer, save_pretrained
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.training.distributed import start_processes, stop_processes
from mammoclip.training.model_card import model_card
from mammoclip.training.pretrain import Job, train
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.pretrain")


def run(arguments: argparse.Namespace) -> None:
    """Train (or, for the untrained control, only initialise) a model and write its folder."""
    section: PretrainSection = arguments.config
    control = section.runs[arguments.run].control
    torch.set_num_threads(section.threads)
    keep_freed_memory()
    text_encoder = resolve_source(section.text_encoder)
    weights = resolve_source(section.image_weights) if section.image_weights else None
    model = build_model(
        ImageEncoderSpec(section.image_encoder, weights),
        TextEncoderSpec(text_encoder),
        section.embedding_dim,
        arguments.seed,
    )
    model.image_encoder.freeze(section.freeze_image_blocks)
    model.text_encoder.freeze(section.freeze_text_layers)
    tokenizer = load_tokenizer(text_encoder, section.max_tokens)
    rank, steps = 0, STEPS.empty()
    work = _work_folder(arguments)
    if control != "untrained":
        rank, world_size = start_processes()
        training, validation = _samplers(arguments, section, shuffled=control == "shuffled_reports")
        job = Job(
            section=section,
            seed=arguments.seed,
            training=training,
            validation=validation,
            tokenizer=tokenizer,
            deepspeed=_read_deepspeed(Path(section.deepspeed)),
            work=work,
            rank=rank,
            world_size=world_size,
        )
        steps = train(model, job)
        stop_processes()
    if rank == 0:
        size = (section.height_px, section.width_px)
        metadata = {"control": control, "datasets": section.datasets, "seed": arguments.seed}
        save_pretrained(model, tokenizer, arguments.out, metadata, image_size_px=size)
        write_text(model_card(arguments.out.name, control, section, steps), arguments.out / "model_card.md")
        write_table(steps, STEPS, arguments.out / "metrics.parquet")
        shutil.rmtree(work)


def _samplers(
    arguments: argparse.Namespace, section: PretrainSection, shuffled: bool
) -> tuple[PairSampler, PairSampler]:
    results = arguments.results
    readers = {}
    for dataset in section.datasets:
        images = read_table(IMAGES, results / "tabulate" / dataset / "images.parquet")
        readers[dataset] = ShardReader(images, results / "shard" / dataset, (section.height_px, section.width_px))
    breasts = pl.concat(
        [read_table(BREASTS, results / "tabulate" / name / "breasts.parquet") for name in section.datasets]
    )
    if shuffled:
        breasts = shuffle_texts(breasts, arguments.seed)
    options = section.augmentation.model_dump(exclude={"horizontal_flip"})
    strength = AugmentationStrength(**options)
    flip = strength.probability if section.augmentation.horizontal_flip else 0.0
    source = ImageSource(readers)
    training = PairSampler(trainable_breasts(breasts, "train"), source, arguments.seed, strength, flip)
    return training, PairSampler(trainable_breasts(breasts, "validation"), source, arguments.seed, None)


def _read_deepspeed(path: Path) -> dict[str, object]:
    try:
        config: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"pretrain.deepspeed: {path} is not a readable JSON file ({error})") from None
    return config


def _work_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder that survives an interruption; another configuration gets another one."""
    key = json.dumps([arguments.config.model_dump(mode="json"), arguments.seed], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder: Path = arguments.results / ".work" / "pretrain" / f"{arguments.out.name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(PretrainSection), required=True)
    parser.add_argument("--run", required=True, help="name under pretrain.runs")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
