"""Tiny Marian models on disk: a few words large, taught in seconds to translate a handful of phrases."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch

from mammoclip.models.torchvision_ops import ensure_torchvision

ensure_torchvision()  # before transformers, which imports torchvision

from transformers import MarianConfig, MarianMTModel, MarianTokenizer  # noqa: E402

Pairs = Sequence[tuple[str, str]]


def write_marian(folder: Path, pairs: Pairs) -> Path:
    """Write a model that translates the first text of each pair into the second, and return its folder."""
    folder.mkdir(parents=True)
    tokenizer = _write_tokenizer(folder, pairs)
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=256,
            dropout=0.0,
            scale_embedding=True,
            eos_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )
    _teach(model, tokenizer, pairs)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path, pairs: Pairs) -> MarianTokenizer:
    pieces: set[str] = set()
    for name, texts in zip(("source", "target"), zip(*pairs, strict=True), strict=True):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(folder / name),
            vocab_size=400,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{name}.vocab").unlink()
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        pieces |= {processor.id_to_piece(index) for index in range(processor.get_piece_size())}
    names = ["</s>", "<unk>", *sorted(pieces - {"<s>", "</s>", "<unk>"}), "<pad>"]  # the order of OPUS-MT
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return MarianTokenizer(*(str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")))


def _teach(model: MarianMTModel, tokenizer: MarianTokenizer, pairs: Pairs) -> None:
    sources, targets = (list(texts) for texts in zip(*pairs, strict=True))
    batch = tokenizer(sources, text_target=targets, padding=True, return_tensors="pt")
    batch["labels"] = batch["labels"].masked_fill(batch["labels"] == tokenizer.pad_token_id, -100)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = model(**batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
