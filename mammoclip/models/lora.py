"""Low-rank adapters on the text encoder, through peft; saved models hold the merged weights and need no peft.

Hu et al., "LoRA" (ICLR 2022): a frozen weight W becomes W + B A, where A and B of rank r are trained.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from mammoclip.errors import ModelError

# Query and value projections of attention, as BERT, DistilBERT, the decoders' family and DeBERTa call them.
_TARGETS = ("query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "query_proj", "value_proj")
_ADAPTER = "default"


def add_lora(backbone: nn.Module, rank: int) -> None:
    """Put adapters of ``rank`` on the query and value projections of ``backbone``, in place, and fix all else.

    The output is at first that without adapters (B is zero). Their scale is 1 (alpha = rank).

    Raises:
        ModelError: if peft is not installed, or no query and value projections are found.
    """
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise ModelError("LoRA needs peft; install it with: pip install 'mammoclip[lora]'") from error
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_TARGETS))
    try:
        peft.inject_adapter_in_model(config, backbone, _ADAPTER)
    except ValueError as error:
        raise ModelError(
            f"LoRA finds none of its layers ({', '.join(_TARGETS)}) in {type(backbone).__name__}; set its rank to 0"
        ) from error


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of ``model`` with every adapter added to its weight: names as if there had been none."""
    state = model.state_dict()
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            base: Any = layer.base_layer
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
            state |= {f"{name}.{key}": value for key, value in base.state_dict().items()}
            state[f"{name}.weight"] = base.weight + layer.get_delta_weight(_ADAPTER)
    return dict(state)
