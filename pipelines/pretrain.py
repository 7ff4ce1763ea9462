"""Stage ``pretrain``: one run, main or control."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import torch

import mammoclip
from mammoclip.artifacts import (
    BREASTS,
    IMAGES,
    PARAPHRASES,
    STEPS,
    VALIDATION,
    Table,
    read_table,
    told_when_full,
    write_table,
    write_text,
)
from mammoclip.config import PretrainSection, resolve_source
from mammoclip.data.augmentation import AugmentationStrength
from mammoclip.data.mixture import Mixture
from mammoclip.data.pairs import PairSampler, trainable_breasts
from mammoclip.data.reader import ImageSource, ShardReader
from mammoclip.data.splits import find_shared_patients
from mammoclip.datasets import ADAPTERS
from mammoclip.errors import ConfigError
from mammoclip.evaluation.validation import BreastScorer
from mammoclip.models import ImageEncoderSpec, MammoClip, TextEncoderSpec, build_model, load_tokenizer, save_pretrained
from mammoclip.models.cpu_memory import keep_freed_memory
from mammoclip.models.text_encoder import check_tokenizer
from mammoclip.training.distributed import check_gpus, start_processes, stop_processes
from mammoclip.training.model_card import Seen, model_card
from mammoclip.training.pretrain import Job, train
from mammoclip.training.tracking import without_monitors
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.pretrain")

_PROMPTS_PER_CLASS = 16  # as evaluation's default
_NO_SCIENCE = {
    "nodes",
    "gpus",
    "threads",
    "micro_batch_size",
    "checkpoint_activations",
    "checkpoint_minutes",
    "deepspeed",
}


def run(arguments: argparse.Namespace) -> None:
    """Train (or, for the untrained control, only initialise) a model and write its folder."""
    section: PretrainSection = arguments.config
    control = section.runs[arguments.run].control
    deepspeed = read_deepspeed(section)
    if control != "untrained":
        check_gpus(section.gpus)
    torch.set_num_threads(section.threads)
    keep_freed_memory()
    text_encoder = resolve_source(section.text_encoder)
    model = _build(section, text_encoder, arguments.seed)
    tokenizer = load_tokenizer(text_encoder, section.max_tokens)
    check_tokenizer(tokenizer, model.text_encoder)
    rank, steps, validation, seen = 0, STEPS.empty(), VALIDATION.empty(), Seen()
    work = work_folder(arguments)
    if control != "untrained":
        rank, world_size = start_processes()
        samplers = _samplers(arguments, section, shuffled=control == "shuffled_reports")
        job = Job(
            section=section,
            seed=arguments.seed,
            training=samplers[0],
            validation=samplers[1],
            tokenizer=tokenizer,
            deepspeed=deepspeed,
            work=work,
            rank=rank,
            world_size=world_size,
            score=_scorer(samplers[1], arguments.seed),
            curves=arguments.results / "tensorboard" / work.name,
        )
        steps, validation = train(model, job)
        stop_processes()
        seen = Seen(
            {name: ADAPTERS[arguments.adapters[name]].source for name in section.datasets},
            Counter(breast.dataset for breast in samplers[0].breasts),
            _scores_of_best_epoch(steps, validation),
        )
    if rank == 0:
        size = (section.height_px, section.width_px)
        metadata = {
            "control": control,
            "datasets": list(seen.num_breasts),
            "seed": arguments.seed,
            "code": f"mammoclip {mammoclip.__version__}",
            "may_be_released": not seen.keeps_from_release,
        }
        with told_when_full(arguments.out):
            save_pretrained(model, tokenizer, arguments.out, metadata, image_size_px=size)
        version = mammoclip.__version__
        card = model_card(arguments.out.name, control, section, steps, seen, seed=arguments.seed, version=version)
        write_text(card, arguments.out / "model_card.md")
        write_table(steps, STEPS, arguments.out / "metrics.parquet")
        write_table(validation, VALIDATION, arguments.out / "validation.parquet")
        shutil.rmtree(work)


def _build(section: PretrainSection, text_encoder: str, seed: int) -> MammoClip:
    weights = resolve_source(section.image_weights) if section.image_weights else None
    model = build_model(
        ImageEncoderSpec(section.image_encoder, weights, (section.height_px, section.width_px)),
        TextEncoderSpec(text_encoder, section.lora_rank),
        section.embedding_dim,
        seed,
        section.projection,
        sigmoid_loss=section.loss.objective == "siglip",
    )
    model.image_encoder.freeze(section.freeze_image_blocks)
    model.text_encoder.freeze(section.freeze_text_layers)
    if section.checkpoint_activations:
        model.image_encoder.checkpoint_activations()
        model.text_encoder.checkpoint_activations()
    return model


def _scorer(validation: PairSampler, seed: int) -> BreastScorer:
    scorer = BreastScorer([breast.captions.views for breast in validation.breasts], _PROMPTS_PER_CLASS, seed)
    for task, classes in scorer.missing_classes.items():
        log.warning(
            "pretrain: no validation breast has class %s of %s: its zero-shot AUROC is left out",
            " or ".join(map(str, classes)),
            task,
        )
    return scorer


def _scores_of_best_epoch(steps: pl.DataFrame, validation: pl.DataFrame) -> dict[str, float]:
    best = steps.filter(pl.col("split") == "validation").sort("loss", "epoch")["epoch"][0]
    return dict(validation.filter(pl.col("epoch") == best).select("metric", "value").rows())


def _samplers(
    arguments: argparse.Namespace, section: PretrainSection, shuffled: bool
) -> tuple[PairSampler, PairSampler]:
    size = (section.height_px, section.width_px)
    readers = {}
    for dataset in section.datasets:
        images = read_table(IMAGES, _table_path(arguments, dataset, IMAGES))
        readers[dataset] = ShardReader(images, arguments.results / "shard" / dataset, size)
    tables = [read_table(BREASTS, _table_path(arguments, name, BREASTS)) for name in section.datasets]
    _report_shared_patients(tables)
    breasts = pl.concat(tables)
    paraphrases = {
        text: others
        for name in section.datasets
        for text, others in read_table(PARAPHRASES, _paraphrases_path(arguments, name)).rows()
    }
    options = section.augmentation.model_dump(exclude={"horizontal_flip"})
    strength = AugmentationStrength(**options)
    flip = strength.probability if section.augmentation.horizontal_flip else 0.0
    source = ImageSource(readers)
    seed = arguments.seed
    training, validation = (trainable_breasts(breasts, split) for split in ("train", "validation"))
    return (
        PairSampler(
            training,
            source,
            seed,
            strength,
            flip,
            paraphrases=paraphrases,
            shuffle_reports=shuffled,
            mode=section.mode,
            mixture=Mixture(section.dataset_weights, homogeneous=section.batches == "homogeneous"),
            warp_later=torch.cuda.is_available(),  # the GPU resamples, not the threads of the loader
        ),
        PairSampler(validation, source, seed, None, shuffle_reports=shuffled),
    )


def _report_shared_patients(tables: list[pl.DataFrame]) -> None:
    shared = find_shared_patients(tables)
    if len(shared):
        crossing = shared.filter(pl.col("splits").list.len() > 1)
        log.warning(
            "%d patients have the same id in several data sets, %d of them in different splits: if they are the same "
            "people, give them one split in the data sets' tables",
            len(shared),
            len(crossing),
        )


def _paraphrases_path(arguments: argparse.Namespace, dataset: str) -> Path:
    path: Path = arguments.results / "tabulate" / f"{dataset}.{PARAPHRASES.name}.parquet"
    return path


def _table_path(arguments: argparse.Namespace, dataset: str, table: Table) -> Path:
    path: Path = arguments.results / "tabulate" / dataset / f"{table.name}.parquet"
    return path


def read_deepspeed(section: PretrainSection) -> dict[str, object]:
    """Return the DeepSpeed configuration; raises ``ConfigError`` where it is not readable."""
    path = Path(section.deepspeed)
    try:
        config: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"pretrain.deepspeed: {path} is not a readable JSON file ({error})") from None
    return config


def work_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder that survives an interruption; other data or another configuration get another one.

    Where and how fast a run is computed makes no other run: it goes on with more GPUs or nodes, or another ZeRO stage.
    """
    section: PretrainSection = arguments.config
    science = section.model_dump(mode="json", exclude=_NO_SCIENCE)
    deepspeed = {
        key: value for key, value in without_monitors(read_deepspeed(section)).items() if key != "zero_optimization"
    }
    digest = hashlib.sha256(json.dumps([science, deepspeed, arguments.seed], sort_keys=True).encode())
    # The images table holds the checksum of every PNG.
    tables = [_table_path(arguments, name, table) for name in section.datasets for table in (IMAGES, BREASTS)]
    paraphrases = [_paraphrases_path(arguments, name) for name in section.datasets]
    for path in [*tables, *paraphrases]:
        digest.update(path.read_bytes() if path.is_file() else b"")  # what is missing is said when it is read
    folder: Path = arguments.results / ".work" / "pretrain" / f"{arguments.out.name}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(PretrainSection), required=True)
    parser.add_argument("--run", required=True, help="name under pretrain.runs")
    parser.add_argument("--adapters", type=json.loads, required=True, help="JSON: adapter of each data set")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
