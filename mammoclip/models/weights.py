"""Reading weight files without running code from them, and filling modules strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mammoclip.errors import ModelError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a ``torch.save`` file that holds a plain state dict, on the CPU.

    Raises ``ModelError`` when the file is missing, damaged, or holds anything that is not a tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"weights file {path} does not exist; check the path")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # damaged or hostile bytes make the two readers raise almost anything
        raise ModelError(
            f"{path} is no weights file that can be read safely; expected .safetensors or a plain state dict saved by "
            f"torch.save ({type(error).__name__})"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} does not hold a plain state dict (names to tensors); export the model's state dict")
    return dict(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy ``state`` into ``module``; ``ModelError`` when a name is missing or unexpected, or a shape differs."""
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    misshapen = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    problems = [
        f"{len(names)} {what} (first: {names[0]})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise ModelError(
            f"weights of {source} do not fit the model: {', '.join(problems)}; check which model they are of"
        )
    module.load_state_dict(dict(state))
