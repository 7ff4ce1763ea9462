"""Zero-shot classification and linear probe on frozen features; arrays in, class scores out.

N images, D embedding dimensions, F pooled features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def zero_shot_scores(image_embeddings: Floats, prompt_embeddings: Floats) -> Floats:
    """Return N x K: softmax over K prompts of the cosine similarity, without temperature (section 3.2 of the paper).

    Both are L2-normalised, N x D and K x D. A temperature would not change AUROC.
    """
    similarity = image_embeddings @ prompt_embeddings.T
    exponential = np.exp(similarity - similarity.max(axis=1, keepdims=True))
    return np.asarray(exponential / exponential.sum(axis=1, keepdims=True), np.float64)


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
    encoder is frozen, batch-norm statistics included.
    """

    def __init__(self, strengths: Sequence[float]) -> None:
        """Take the inverse L2 strengths to choose from."""
        self._strengths = strengths
        self._model: Pipeline | None = None
        self.strength = strengths[0]  # the one chosen, after `fit`

    def fit(self, train: Floats, train_labels: Labels, validation: Floats, validation_labels: Labels) -> LinearProbe:
        """Fit one model per strength on N x F features and keep the best on validation."""
        classes = np.unique(train_labels)
        known = np.isin(validation_labels, classes)
        losses: list[float] = []
        models: list[Pipeline] = []
        for strength in self._strengths:
            model = make_pipeline(
                StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
            ).fit(train, train_labels)
            losses.append(_balanced_log_loss(model, validation[known], validation_labels[known], classes))
            models.append(model)
        best = int(np.argmin(losses))
        self._model, self.strength = models[best], self._strengths[best]
        return self

    def scores(self, features: Floats, num_classes: int) -> Floats:
        """Return N x K probabilities; a class that training did not have gets 0."""
        if self._model is None:
            raise ValueError("fit the probe before asking for scores")
        scores = np.zeros((len(features), num_classes))
        scores[:, self._model.classes_] = self._model.predict_proba(features)
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


def _balanced_log_loss(model: Pipeline, features: Floats, labels: Labels, classes: Labels) -> float:
    counts = {label: int((labels == label).sum()) for label in classes}
    weights = [1.0 / counts[label] for label in labels]
    return float(log_loss(labels, model.predict_proba(features), sample_weight=weights, labels=classes))
