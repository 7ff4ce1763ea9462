"""Stage ``evaluate``: image-text retrieval among the test breasts of data sets with texts, by one run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mammoclip.artifacts import BREASTS, FEATURES, RETRIEVAL, read_table, write_table
from mammoclip.config import EvaluateSection
from mammoclip.errors import ArtifactError
from mammoclip.evaluation.examples import check_checkpoint
from mammoclip.evaluation.features import weights_sha256
from mammoclip.evaluation.retrieve import Breasts, EncodeTexts, embed_breasts, retrieval_table
from mammoclip.models import LoadedModel, load
from pipelines.command import run_stage, section_argument


def run(arguments: argparse.Namespace) -> None:
    """Write recall and median rank of every data set of ``evaluate.retrieval``."""
    torch.set_num_threads(arguments.threads)
    section: EvaluateSection = arguments.config
    table = RETRIEVAL.empty()
    if section.retrieval:
        model = load(arguments.model, device="cuda" if torch.cuda.is_available() else "cpu")
        encode_texts = _encoder(model, section.batch_size)
        sha256 = weights_sha256(arguments.model)
        datasets = {
            dataset: _embed(arguments.results, arguments.run, dataset, sha256, encode_texts)
            for dataset in section.retrieval
        }
        table = retrieval_table(datasets, arguments.run, section.num_resamples, section.confidence, arguments.seed)
    write_table(table, RETRIEVAL, arguments.out)


def _embed(results: Path, run: str, dataset: str, model_sha256: str, encode_texts: EncodeTexts) -> Breasts:
    path = results / "evaluate" / run / dataset / "features.parquet"
    features = read_table(FEATURES, path)
    check_checkpoint(features, model_sha256, path)
    breasts = read_table(BREASTS, results / "tabulate" / dataset / "breasts.parquet")
    try:
        return embed_breasts(breasts, features, encode_texts, "test")
    except ArtifactError as error:
        raise ArtifactError(f"evaluate.retrieval, {dataset}: {error}") from None


def _encoder(model: LoadedModel, batch_size: int) -> EncodeTexts:
    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        batches = (texts[start : start + batch_size] for start in range(0, len(texts), batch_size))
        return torch.cat([model.encode_text(batch).cpu() for batch in batches]).numpy()

    return encode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(EvaluateSection), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
