"""The text encoder: any BERT-like transformers model, pooled at the last attended token.

Shapes: B batch, T tokens, C hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from mammoclip.errors import ModelError
from mammoclip.models.lora import add_lora

MAX_TOKENS = 256
_LENGTH_GROUPS = 4
_LAYER_LISTS = ("encoder.layer", "transformer.layer", "layers")  # BERT and kin, DistilBERT, ModernBERT
_SMALLEST_GROUP = 8  # texts: below this, more calls cost more than padding


def pool_last_token(hidden_BTC: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """The hidden state (B, C) of each text's last attended token, wherever the padding is."""
    positions = torch.arange(attention_mask_BT.shape[1], device=attention_mask_BT.device)
    last = (positions * (attention_mask_BT != 0)).argmax(dim=1)
    return hidden_BTC[torch.arange(len(last), device=last.device), last]


class TextEncoder(nn.Module):
    """Wraps a transformers model; ``num_features`` is its hidden width.

    The pooler of a BERT goes: it is not used, and a parameter without gradient troubles data-parallel training.
    """

    def __init__(self, backbone: Any) -> None:
        """Wrap ``backbone``, a transformers model that returns ``last_hidden_state``."""
        super().__init__()
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        self.text_encoder: Any = backbone
        self.num_features = int(self.text_encoder.config.hidden_size)
        self._frozen: list[nn.Module] = []  # a list, so that frozen modules are not registered twice

    def freeze(self, num_layers: int) -> None:
        """Fix the embeddings and the first ``num_layers`` layers: no gradient, no dropout. 0 freezes nothing.

        Raises ``ModelError`` for more layers than there are, or an architecture whose ``embeddings`` and list of layers
        are not found.
        """
        if num_layers == 0:
            return
        modules = dict(self.text_encoder.named_modules())
        layers: Any = next((modules[name] for name in _LAYER_LISTS if name in modules), [])
        if not 0 < num_layers <= len(layers) or "embeddings" not in modules:
            raise ModelError(
                f"cannot freeze {num_layers} layers: the text encoder has {len(layers)} in {' or '.join(_LAYER_LISTS)}"
            )
        self._frozen = [self.text_encoder.embeddings, *layers[:num_layers]]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def checkpoint_activations(self) -> None:
        """Keep only what passes between layers for the backward pass and compute the rest again: memory for time.

        Outputs and gradients are those without it. Raises ``ModelError`` where the transformers model cannot do it.
        """
        try:
            self.text_encoder.activation_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise ModelError("the text encoder cannot checkpoint its activations; leave it off") from error
        self.text_encoder.disable_input_require_grads()  # or the backward pass would go through frozen layers

    def train(self, mode: bool = True) -> TextEncoder:
        """Switch the mode of all that is not frozen; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @property
    def config(self) -> dict[str, Any]:
        """The transformers configuration as JSON-ready values: enough to build the same architecture again."""
        config: dict[str, Any] = self.text_encoder.config.to_diff_dict()
        return config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (B, T), integers, to features (B, C) of the last attended token.

        Texts of similar length run together, so that little time goes into padding: findings are several times as long
        as impressions. The features are the same as those of one padded batch.
        """
        groups = max(1, min(_LENGTH_GROUPS, len(input_ids) // _SMALLEST_GROUP))
        order = attention_mask.sum(dim=1).argsort(stable=True)
        features = torch.cat([self._encode(input_ids[rows], attention_mask[rows]) for rows in order.chunk(groups)])
        return features[order.argsort()]

    def _encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        length = int(attention_mask.any(dim=0).nonzero().max()) + 1
        input_ids, attention_mask = input_ids[:, :length], attention_mask[:, :length]
        output = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask)
        return pool_last_token(output.last_hidden_state, attention_mask)


def _from_hub(load: Callable[..., Any], name_or_path: str | Path, what: str, **options: Any) -> Any:
    if Path(name_or_path).is_dir():
        transformers_logging.disable_progress_bar()  # bars are for downloads
    try:
        return load(str(name_or_path), **options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"the {what} {str(name_or_path)!r} cannot be loaded; give a folder with config.json, weights and tokenizer "
            f"files, or a model id of the Hugging Face hub that is in its cache or reachable ({type(error).__name__})"
        ) from error


def load_text_encoder(name_or_path: str | Path, lora_rank: int = 0) -> TextEncoder:
    """A pretrained encoder, in float32, from a local folder or a Hugging Face hub id.

    For example ``load_text_encoder("emilyalsentzer/Bio_ClinicalBERT")``. With a ``lora_rank`` above 0 adapters of that
    rank are added and all else is fixed (see ``lora.add_lora``). Raises ``ModelError`` when it cannot be found.
    """
    encoder = TextEncoder(_from_hub(AutoModel.from_pretrained, name_or_path, "text encoder", dtype=torch.float32))
    if lora_rank > 0:
        add_lora(encoder.text_encoder, lora_rank)
    return encoder


def check_tokenizer(tokenizer: Any, encoder: TextEncoder) -> None:
    """Check that the encoder has an embedding for every token that the tokenizer knows.

    Raises:
        ModelError: shows both sizes; the tokenizer is another model's.
    """
    rows = encoder.text_encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer knows {len(tokenizer)} tokens and the text encoder {rows}: they are of different models; "
            "give the folder or hub id of a model with its own tokenizer"
        )


def text_encoder_from_config(config: Mapping[str, Any]) -> TextEncoder:
    """A randomly initialised encoder of the architecture that ``TextEncoder.config`` describes."""
    options = dict(config)
    try:
        model_config = AutoConfig.for_model(options.pop("model_type"), **options)
    except (KeyError, ValueError) as error:
        raise ModelError(f"unknown text encoder architecture in the configuration: {error}") from error
    return TextEncoder(AutoModel.from_config(model_config))


def load_tokenizer(name_or_path: str | Path, max_tokens: int = MAX_TOKENS) -> Any:
    """The tokenizer of a local folder or hub id; it cuts at ``max_tokens`` tokens, special tokens included."""
    tokenizer = _from_hub(AutoTokenizer.from_pretrained, name_or_path, "tokenizer")
    tokenizer.model_max_length = min(max_tokens, tokenizer.model_max_length)
    return tokenizer


def tokenise(tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts to int64 ``(input_ids, attention_mask)``, each (B, T): padded to the longest, cut at the limit."""
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]
