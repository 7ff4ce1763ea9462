"""What a fine-tuning trains: the classifier, its parameter groups, the weights of its classes, and what rates it.

N images, B in a batch, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mammoclip.config import FineTuneSection, Mode
from mammoclip.evaluation.examples import Floats, Labels
from mammoclip.evaluation.metrics import auroc, macro_auroc
from mammoclip.models import TimmEncoder
from mammoclip.models.image_encoder import ImageEncoder


class Classifier(nn.Module):
    """A linear head on the pooled features of an image encoder: one logit for two classes, else one per class."""

    def __init__(
        self, encoder: ImageEncoder, num_classes: int, *, trains_encoder: bool, mode: Mode, bf16: bool
    ) -> None:
        """Put a head, drawn from torch's global random state, on ``encoder``, which is trained or frozen."""
        super().__init__()
        self.encoder = encoder.requires_grad_(trains_encoder)
        self.head = nn.Linear(encoder.num_features, 1 if num_classes == 2 else num_classes)
        # [quirk] The released linear probe leaves its frozen encoder in training mode: dropout is on, and the
        # statistics of batch norms move.
        self._encoder_follows_mode = trains_encoder or mode == "compat"
        self._bf16 = bf16

    def train(self, mode: bool = True) -> Classifier:
        """Switch the mode; a frozen encoder stays in evaluation mode, but for the quirk of compat."""
        super().train(mode)
        if not self._encoder_follows_mode:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 1, H, W) to float32 logits (B, 1 or K); the head itself never rounds to bf16."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bf16):
            features = self.encoder(images)
        logits: Tensor = self.head(features.float())
        return logits


def parameter_groups(classifier: Classifier, section: FineTuneSection) -> list[dict[str, Any]]:
    """Return AdamW's groups: the head and the last block at the learning rate, each block before at less.

    A block's factor is ``layer_decay`` to the power of the blocks between it and the head; the stem is one block more.
    Weight decay is the same for all.
    """
    rate, encoder = section.learning_rate, classifier.encoder
    head = {"params": list(classifier.head.parameters()), "lr": rate}
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        return [head]
    if isinstance(encoder, TimmEncoder):
        from timm.optim import param_groups_layer_decay  # noqa: PLC0415  (after mammoclip.models: see torchvision_ops)

        layers = param_groups_layer_decay(
            encoder.backbone, section.weight_decay, weight_decay_exclude_1d=False, layer_decay=section.layer_decay
        )
        return [head, *({"params": layer["params"], "lr": rate * layer["lr_scale"]} for layer in layers)]
    *blocks, last = encoder._blocks
    depths = [
        nn.ModuleList([last, encoder._conv_head, encoder._bn1]),
        *reversed(blocks),
        nn.ModuleList([encoder._conv_stem, encoder._bn0]),
    ]
    return [
        head,
        *(
            {"params": list(module.parameters()), "lr": rate * section.layer_decay**distance}
            for distance, module in enumerate(depths)
        ),
    ]


def class_weights(labels: Labels, num_classes: int, mode: Mode) -> Floats:
    """Return the weight (K) of the loss of each class, from the training labels, which must have all of them.

    Two classes: that of the positives is negatives / positives. More: inverse frequency, 1 on average over the images;
    compat: 1.

    >>> class_weights(np.array([0, 0, 0, 1]), 2, "strict").tolist()
    [1.0, 3.0]
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    if num_classes == 2:
        return np.array([1.0, counts[0] / counts[1]])
    return np.ones(num_classes) if mode == "compat" else len(labels) / (num_classes * counts)


def selection_score(labels: Labels, probabilities: Floats) -> float:
    """Return what chooses the epoch: AUROC, of several classes its mean; where a class is absent, minus the log loss.

    >>> selection_score(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    1.0
    """
    binary = probabilities.shape[1] == 2
    area = auroc(labels, probabilities[:, 1]) if binary else macro_auroc(labels, probabilities)
    if not np.isnan(area):
        return area
    return float(np.log(probabilities[np.arange(len(labels)), labels].clip(1e-12)).mean())
