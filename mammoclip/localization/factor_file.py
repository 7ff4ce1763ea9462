"""Mammo-FActOR as a file, and what it makes of any sentence: format ``mammo-factor``, version 1.

A ``.safetensors`` file with the state dict of ``MammoFactor``. Its header's metadata hold ``format``, ``version`` and
``factor``, JSON: ``attributes``, their ``sentences``, ``image_size_px``, ``pool``, ``model_sha256``, ``keep_negative``,
and ``map_size``, ``hidden`` and ``temperature`` of the mappings. Shapes: B images, C channels, h and w cells of a
pooled map, K attributes, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mammoclip.artifacts import atomic_path
from mammoclip.errors import ArtifactError, ModelError
from mammoclip.evaluation.features import weights_sha256
from mammoclip.localization.factor import MammoFactor, pool_maps, weighted_map
from mammoclip.models import LoadedModel
from mammoclip.models.relevance import last_maps
from mammoclip.models.weights import load_into
from mammoclip.text import report_facts

FORMAT = "mammo-factor"
VERSION = 1


@dataclass(frozen=True)
class FactorFile:
    """Trained mappings, in evaluation mode, and what they were trained on.

    ``sentences`` are those of each of the K ``attributes``; ``image_size_px`` is (height, width) of the images whose
    last maps, pooled by ``pool``, the mappings take; ``model_sha256`` is that of the weights of the model.
    """

    factor: MammoFactor
    attributes: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    image_size_px: tuple[int, int]
    pool: int
    model_sha256: str
    keep_negative: bool

    def check_weights(self, folder: Path) -> None:
        """Raise ``ModelError`` unless the mappings were trained on the weights in the model folder."""
        try:
            found = weights_sha256(folder)
        except OSError:
            raise ModelError(f"{folder} holds no model.safetensors; give a folder written by mammoclip") from None
        if found != self.model_sha256:
            raise ModelError(
                f"the Mammo-FActOR was trained on a model whose weights have the SHA-256 {self.model_sha256[:12]}..., "
                f"those in {folder} have {found[:12]}...; give the model of its own run, or train it again on this one"
            )

    @torch.inference_mode()
    def maps(self, model: LoadedModel, images: Sequence[Any]) -> Tensor:
        """Return the pooled last maps (B, C, h, w) of grey images, as ``LoadedModel.preprocess`` takes them."""
        pixels = replace(model, image_size_px=self.image_size_px).preprocess(images)
        scale = model.model.logit_scale
        return pool_maps(last_maps(model.model.image_encoder, pixels.to(scale.device, scale.dtype)), self.pool)

    @torch.no_grad()
    def explain(self, model: LoadedModel, maps: Tensor, text: str) -> tuple[str, Tensor]:
        """Return the attribute that a sentence is about, and where the sentence is, float32 (h, w).

        It is the one that the sentence states or denies; of a sentence that speaks of none of them, or of several, the
        one whose sentences come nearest to it.

        The channels are mapped as those of that attribute and held against the embedding of the sentence in place of
        that of the attribute. How near the two are decides how much the map means.

        Args:
            model: the one of ``check_weights``, which embeds the sentence.
            maps: of one image, C x h x w, as ``maps`` returns them.
            text: one sentence, of any words.

        Raises:
            ModelError: the maps have other cells than those of training.
        """
        if tuple(maps.shape[1:]) != self.factor.map_size:
            raise ModelError(
                f"the Mammo-FActOR takes maps of {self.factor.map_size} cells and was given {tuple(maps.shape[1:])}; "
                f"compute them of images of {self.image_size_px} pixels, pooled by {self.pool}"
            )
        texts = self.factor.text_embeddings
        embedding, maps = model.encode_text(text)[0].to(texts.device), maps.to(texts.device)
        stated = {fact.attribute for fact in report_facts({"FINDINGS": text})} & {*self.attributes}
        attribute = stated.pop() if len(stated) == 1 else self.attributes[int((texts @ embedding).argmax())]
        similarities = self.factor.similarities_to(maps[None], self.attributes.index(attribute), embedding)[0]
        return attribute, weighted_map(maps, similarities, keep_negative=self.keep_negative)


def save_factor(
    path: Path,
    factor: MammoFactor,
    attributes: Sequence[str],
    sentences: Sequence[Sequence[str]],
    *,
    image_size_px: tuple[int, int],
    pool: int,
    model_sha256: str,
    keep_negative: bool,
) -> None:
    """Write trained mappings atomically; see ``FactorFile``.

    Raises:
        ArtifactError: the disk is full.
        ValueError: attributes, their sentences and the mappings are not of one number.
    """
    numbers = (len(attributes), len(sentences), len(factor.text_embeddings))
    if len(set(numbers)) > 1:
        raise ValueError("{} attributes, the sentences of {} and {} mappings are not of one number".format(*numbers))
    description = {
        "attributes": list(attributes),
        "sentences": [list(of_attribute) for of_attribute in sentences],
        "image_size_px": list(image_size_px),
        "pool": pool,
        "model_sha256": model_sha256,
        "keep_negative": keep_negative,
        "map_size": list(factor.map_size),
        "hidden": factor.first_weight.shape[1],
        "temperature": factor.temperature,
    }
    state = {name: value.detach().cpu().contiguous() for name, value in factor.state_dict().items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "factor": json.dumps(description)}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata=metadata)


def load_factor(path: Path) -> FactorFile:
    """Read what ``save_factor`` wrote, on the CPU.

    Raises:
        ArtifactError: the file is missing, damaged, of another format or of another version.
        ModelError: its weights do not fit its description.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; give the factor.safetensors of a Mammo-FActOR")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{path} is damaged or no safetensors file ({error}); delete it and train the Mammo-FActOR again"
        ) from None
    found = (metadata.get("format"), metadata.get("version"))
    if found != (FORMAT, str(VERSION)):
        raise ArtifactError(
            f"{path}: expected format {FORMAT!r} version {VERSION}, found {found[0]!r} version {found[1]}; give the "
            "file of a Mammo-FActOR, or train it again"
        )
    try:
        told = json.loads(metadata["factor"])
        (height, width), (rows, columns) = told["image_size_px"], told["map_size"]
        with torch.random.fork_rng(devices=[]):  # the random initialisation is overwritten at once
            factor = MammoFactor((rows, columns), state["text_embeddings"], told["hidden"], told["temperature"])
        described = FactorFile(
            factor=factor.eval(),
            attributes=tuple(told["attributes"]),
            sentences=tuple(map(tuple, told["sentences"])),
            image_size_px=(height, width),
            pool=told["pool"],
            model_sha256=told["model_sha256"],
            keep_negative=told["keep_negative"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: its description is damaged ({type(error).__name__}: {error}); delete it and train the "
            "Mammo-FActOR again"
        ) from None
    load_into(factor, state, source=str(path))
    return described
