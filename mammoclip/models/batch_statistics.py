"""Batch norms under activation checkpointing, which runs every forward pass twice."""

from __future__ import annotations

from torch import nn


class CountedOnce:
    """Wrap each forward pass of ``module`` in this, and its batch norms see every batch once.

    Checkpointed layers run again in the backward pass, outside the ``with`` block: momentum is 0 there, so that the
    running statistics stay as they are. Only the count of batches, which nothing here reads, goes up twice.
    """

    def __init__(self, module: nn.Module) -> None:
        """Note the momentum of every batch norm in ``module``."""
        norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
        self._momenta = [(norm, norm.momentum) for norm in norms]

    def __enter__(self) -> None:
        """Let the statistics move."""
        for norm, momentum in self._momenta:
            norm.momentum = momentum

    def __exit__(self, *error: object) -> None:
        """Hold the statistics."""
        for norm, _ in self._momenta:
            norm.momentum = 0.0
