"""Contrastive pretraining: objective, schedule, DeepSpeed engine, loop with exact resume."""

from mammoclip.training.objective import contrastive_loss

__all__ = ["contrastive_loss"]
