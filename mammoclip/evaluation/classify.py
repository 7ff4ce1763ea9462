"""Zero-shot classification and linear probe on frozen features; arrays in, class scores out.

N images, D embedding dimensions, F pooled features, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.special  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def zero_shot_scores(image_embeddings: Floats, prompt_embeddings: Floats, logit_scale: float = 1.0) -> Floats:
    """Return N x K: softmax over K prompts of ``logit_scale`` times the cosine similarity.

    Both embeddings are L2-normalised, N x D and K x D. The released code has no scale (1; section 3.2 of the paper); of
    two classes it does not change AUROC, but the model's own makes probabilities of the scores.
    """
    return np.asarray(scipy.special.softmax(logit_scale * image_embeddings @ prompt_embeddings.T, axis=1), np.float64)


def mean_direction(embeddings: Floats) -> Floats:
    """Return the L2-normalised mean (D) of L2-normalised embeddings (N x D): one prompt of many sentences.

    >>> mean_direction(np.eye(2)).round(3).tolist()
    [0.707, 0.707]
    """
    mean = embeddings.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float64)


class LinearProbe:
    """Logistic regression on standardised frozen features, classes weighted by inverse frequency.

    The strength of the L2 penalty is the one with the lowest class-balanced log loss on the validation images; the
    encoder is frozen, batch-norm statistics included. Features are fitted in single precision, which they are stored
    in, and each strength starts from the optimum of the one before.
    """

    def __init__(self, strengths: Sequence[float]) -> None:
        """Take the inverse L2 strengths to choose from."""
        self._strengths = sorted(strengths)
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415  (seconds to import; zero-shot needs none)

        self._scaler = StandardScaler()
        self._model: LogisticRegression | None = None
        self.strength = self._strengths[0]  # the one chosen, after `fit`

    def fit(self, train: Floats, train_labels: Labels, validation: Floats, validation_labels: Labels) -> LinearProbe:
        """Fit one model per strength on N x F features and keep the best on validation."""
        classes = np.unique(train_labels)
        known = np.isin(validation_labels, classes)
        scaled = self._scaler.fit_transform(train).astype(np.float32)
        held_out = self._scaler.transform(validation[known]).astype(np.float32)
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

        model = LogisticRegression(class_weight="balanced", max_iter=500, warm_start=True)
        lowest = np.inf
        for strength in self._strengths:
            model.set_params(C=strength).fit(scaled, train_labels)
            loss = _balanced_log_loss(model, held_out, validation_labels[known], classes)
            if loss < lowest:
                lowest, self.strength, self._model = loss, strength, copy.deepcopy(model)
        return self

    def scores(self, features: Floats, num_classes: int) -> Floats:
        """Return N x K probabilities; a class that training did not have gets 0."""
        if self._model is None:
            raise ValueError("fit the probe before asking for scores")
        scores = np.zeros((len(features), num_classes))
        scaled = self._scaler.transform(features).astype(np.float32)
        # In double precision again, so that the probabilities of an image sum to 1.
        logits = self._model.decision_function(scaled).astype(np.float64)
        logits = np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits
        scores[:, self._model.classes_] = scipy.special.softmax(logits, axis=1)
        return scores


def permute_by_patient(labels: Labels, patients: Sequence[str], seed: int | Sequence[int]) -> Labels:
    """Return ``labels`` with whole patients' label blocks exchanged between patients, as a control.

    Patients are paired with others that have as many images, so the labels keep their distribution and their
    correlation within a patient, and lose their connection to the images.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    by_size: dict[int, list[list[int]]] = {}
    for patient in sorted(rows):
        by_size.setdefault(len(rows[patient]), []).append(rows[patient])
    permuted = labels.copy()
    for blocks in by_size.values():
        for target, source in zip(blocks, rng.permutation(len(blocks)), strict=True):
            permuted[target] = labels[blocks[int(source)]]
    return permuted


def _balanced_log_loss(model: LogisticRegression, features: Floats, labels: Labels, classes: Labels) -> float:
    counts = {label: int((labels == label).sum()) for label in classes}
    weights = [1.0 / counts[label] for label in labels]
    probabilities = model.predict_proba(features).astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    from sklearn.metrics import log_loss  # noqa: PLC0415

    return float(log_loss(labels, probabilities, sample_weight=weights, labels=classes))
