"""Paraphrases by back-translation: a text is translated to a second language and back (Mammo-CLIP, MICCAI 2024).

Both translators are Marian models (OPUS-MT) for any pair of languages, for example ``Helsinki-NLP/opus-mt-en-it`` and
``Helsinki-NLP/opus-mt-it-en``. Beams are sampled, not searched, so that a text can have several paraphrases.
Nothing here checks that a paraphrase keeps the facts of its text.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch.overrides import TorchFunctionMode
from transformers import MarianMTModel, MarianTokenizer
from transformers.utils import is_sentencepiece_available
from transformers.utils import logging as transformers_logging

from mammoclip.errors import ModelError
from mammoclip.models.text_encoder import MAX_TOKENS
from mammoclip.text import clean_sentences

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_REQUIRED = ("config.json", "source.spm", "target.spm", "vocab.json")
_FILES = (*_REQUIRED, *_WEIGHTS, "generation_config.json", "target_vocab.json", "tokenizer_config.json")
_TOP_K = 50
"""Likeliest tokens that are sampled from: the default of transformers, under which the reference ran."""


class BackTranslator:
    """Two Marian models that paraphrase by translating there and back.

    A paraphrase depends on its text, the two models, the settings and the seed. It does not depend on the texts in the
    same call: every paraphrase draws from a random stream of its own. (Rounding depends on the shape of a batch and on
    the processor; where it tips a draw, a paraphrase differs.)
    """

    def __init__(
        self,
        forward: str | Path,
        backward: str | Path,
        *,
        paraphrases_per_text: int = 1,
        num_beams: int = 5,
        temperature: float = 1.5,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        """Load the two models in float32. The defaults are the reference's.

        Args:
            forward: Marian model from the language of the texts: a local folder, or a Hugging Face hub id.
            backward: Marian model of the opposite direction.
            paraphrases_per_text: how many are drawn for a text, at least 1; the first ones do not depend on it.
            num_beams: beams of each translation, at least 1.
            temperature: above 0; the larger, the further a paraphrase strays.
            seed: of the random streams.
            device: where the models run.

        Raises:
            ModelError: a model cannot be found or loaded, or the package sentencepiece is not installed.
        """
        if not is_sentencepiece_available():
            raise ModelError(
                "back-translation needs the package sentencepiece, which is not installed; pip install sentencepiece"
            )
        self._forward = _Translator(forward, torch.device(device))
        self._backward = _Translator(backward, torch.device(device))
        self._paraphrases_per_text = paraphrases_per_text
        self._seed = seed
        self._sampling = {"num_beams": num_beams, "temperature": temperature, "top_k": _TOP_K, "max_length": MAX_TOKENS}

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of all that decides the paraphrases of a text: model files, settings, seed.

        A model has the same identity in a folder as on the hub, wherever the folder lies.
        """
        models = [self._forward.fingerprint, self._backward.fingerprint]
        settings = [self._sampling, self._paraphrases_per_text, self._seed]
        return hashlib.sha256(json.dumps([models, settings]).encode()).hexdigest()

    def paraphrase(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the paraphrases of each text: cleaned as training texts are, distinct, none equal to its text.

        A text whose translations all come back unchanged, or as two words or fewer, has none.
        Memory grows with texts times paraphrases times beams.
        """
        rows = [(text, number) for text in texts for number in range(self._paraphrases_per_text)]
        pivots = self._forward.translate([text for text, _ in rows], self._seeds("forward", rows), self._sampling)
        returned = self._backward.translate(pivots, self._seeds("backward", rows), self._sampling)
        found: list[dict[str, None]] = [{} for _ in texts]
        for index, translation in enumerate(returned):
            found[index // self._paraphrases_per_text][" ".join(clean_sentences(translation, "strict"))] = None
        return [
            [paraphrase for paraphrase in paraphrases if paraphrase not in ("", text)]
            for text, paraphrases in zip(texts, found, strict=True)
        ]

    def _seeds(self, direction: str, rows: Iterable[tuple[str, int]]) -> list[int]:
        digests = (hashlib.sha256(json.dumps([self._seed, direction, *row]).encode()).digest() for row in rows)
        return [int.from_bytes(digest[:8], "big") for digest in digests]


class _Translator:
    """One Marian model and its tokenizer."""

    def __init__(self, name_or_path: str | Path, device: torch.device) -> None:
        folder = _local_folder(name_or_path)
        self.fingerprint = _fingerprint(folder)
        self._device = device
        self._tokenizer = _load(MarianTokenizer.from_pretrained, folder)
        # Old models come as pytorch_model.bin, a pickle: weights_only keeps it from running code.
        self._model, report = _load(
            MarianMTModel.from_pretrained, folder, weights_only=True, dtype=torch.float32, output_loading_info=True
        )
        if report["missing_keys"]:
            raise ModelError(
                f"the weights in {folder} are not those of a Marian model: {len(report['missing_keys'])} are missing "
                f"(first: {min(report['missing_keys'])}); give a folder or hub id of an OPUS-MT model"
            )
        self._model.to(device).eval()

    def translate(self, texts: Sequence[str], seeds: Sequence[int], sampling: dict[str, Any]) -> list[str]:
        """Return one translation of each text, sampled with its seed."""
        if not texts:
            return []
        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode(), _StreamPerRow(seeds, self._device):
            tokens = self._model.generate(**batch, do_sample=True, **sampling)
        translations: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return translations


class _StreamPerRow(TorchFunctionMode):
    """Makes each row of a sampling step draw from a generator of its own, whatever rows there are beside it.

    ``generate`` of transformers knows the global generator only, of which a row's share depends on the other rows.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.multinomial:
            return func(*args, **kwargs)
        (probabilities,) = args
        rows = zip(probabilities, self._generators, strict=True)
        return torch.stack([torch.multinomial(row, **kwargs, generator=generator) for row, generator in rows])


def _local_folder(name_or_path: str | Path) -> Path:
    """Return the folder itself, or the downloaded files of a hub id; a sentence says which files it lacks."""
    folder = Path(name_or_path)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(str(name_or_path), allow_patterns=list(_FILES)))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the translation model {str(name_or_path)!r} is neither a folder nor a model of the Hugging Face hub "
                f"that is in its cache or reachable; check the name ({type(error).__name__})"
            ) from error
    lacking = [name for name in _REQUIRED if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _WEIGHTS):
        lacking.append(" or ".join(_WEIGHTS))
    if lacking:
        raise ModelError(
            f"the translation model {str(name_or_path)!r} lacks {', '.join(lacking)}; give a folder or hub id of a "
            "Marian model (OPUS-MT) with all its files"
        )
    return folder


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in (folder / name for name in sorted(_FILES)):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _load(from_pretrained: Callable[..., Any], folder: Path, **options: Any) -> Any:
    transformers_logging.disable_progress_bar()  # bars are for downloads
    try:
        with warnings.catch_warnings():
            # sacremoses is for a method that neither transformers nor we call.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            return from_pretrained(str(folder), local_files_only=True, **options)
    except Exception as error:  # damaged or hostile bytes make the readers raise almost anything
        raise ModelError(
            f"the translation model in {folder} cannot be read; expected the files of a Marian model (OPUS-MT), whole "
            f"and of one model ({type(error).__name__})"
        ) from error
