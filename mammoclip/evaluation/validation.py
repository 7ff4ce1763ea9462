"""What is measured on the validation breasts after an epoch of pretraining: zero-shot AUROC, and retrieval.

Arrays in, numbers out. Shapes: N breasts, D dimensions, P prompts, K classes. Embeddings are L2-normalised; a breast
has two images and two texts, as ``data.pairs.PairSampler`` draws them for validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mammoclip.artifacts import FINDING_NAMES, NO_FINDING
from mammoclip.evaluation.classify import mean_direction, zero_shot_scores
from mammoclip.evaluation.metrics import auroc, macro_auroc
from mammoclip.evaluation.retrieval import FloatArray, IntArray, retrieval_metrics
from mammoclip.text import prompt_ensemble

Views = Sequence[Sequence[tuple[str, int]]]
"""For each view the labels (name, value) that are stated, as in ``data.captions.Captions.views``."""

NUM_CLASSES = {"mass": 2, "suspicious_calcification": 2, "density": 4}
"""Classes of the tasks that are watched."""

UNKNOWN = -1
"""The label of a breast of which nothing is stated."""

_ZERO_SHOT = {
    task: f"zero_shot_{'auroc' if num_classes == 2 else 'macro_auroc'}_{task}"
    for task, num_classes in NUM_CLASSES.items()
}


class BreastScorer:
    """Scores embeddings of validation breasts, whose labels it knows.

    ``prompts`` are the sentences that the model has to embed with them. A task is scored if every class of it occurs:
    of one class there is no AUROC, and of four a mean over three would be another quantity. ``missing_classes`` says
    which tasks are not, so that a person can be told.
    """

    def __init__(self, breasts: Sequence[Views], prompts_per_class: int, seed: int) -> None:
        """Score breasts with these labels by an ensemble of prompts; see ``text.prompt_ensemble``."""
        self._labels = {task: breast_labels(breasts, task) for task in NUM_CLASSES}
        self._ensembles = {task: prompt_ensemble(task, prompts_per_class, seed) for task in NUM_CLASSES}

    @property
    def prompts(self) -> tuple[str, ...]:
        """The P sentences of all tasks and classes, in the order in which their embeddings are expected."""
        return tuple(prompt for ensemble in self._ensembles.values() for prompts in ensemble for prompt in prompts)

    @property
    def missing_classes(self) -> dict[str, list[int]]:
        """Task -> classes that no breast has; tasks without such a class are not there."""
        missing = {
            task: sorted(set(range(NUM_CLASSES[task])) - set(labels.tolist())) for task, labels in self._labels.items()
        }
        return {task: classes for task, classes in missing.items() if classes}

    def __call__(
        self,
        breasts: IntArray,
        images: FloatArray,
        texts: FloatArray,
        text_ids: IntArray,
        prompts: FloatArray,
    ) -> dict[str, float]:
        """Return the metrics by name.

        Args:
            breasts: N, which breasts were embedded: their places among those that the scorer was made with.
            images: N x 2 x D.
            texts: N x 2 x D.
            text_ids: N x 2, int64; equal texts have equal ids.
            prompts: P x D, embeddings of `prompts`.

        Returns:
            ``zero_shot_auroc_mass``, ``zero_shot_auroc_suspicious_calcification`` and
            ``zero_shot_macro_auroc_density`` of the tasks whose classes all occur among these breasts, and what
            `breast_retrieval` returns.

        Raises:
            ValueError: there are not as many embeddings of prompts as `prompts`.
            MammoClipError: an embedding is not finite.
        """
        if len(prompts) != len(self.prompts):
            raise ValueError(f"expected the embeddings of {len(self.prompts)} prompts, found {len(prompts)}.")
        sizes = [len(sentences) for ensemble in self._ensembles.values() for sentences in ensemble]
        sentences_of_classes = np.split(prompts.astype(np.float64), np.cumsum(sizes)[:-1])
        classes = np.array([mean_direction(sentences) for sentences in sentences_of_classes])
        classes_of_tasks = np.split(classes, np.cumsum(list(NUM_CLASSES.values()))[:-1])
        found = {
            _ZERO_SHOT[task]: zero_shot_auroc(images, of_task, self._labels[task][breasts])
            for task, of_task in zip(NUM_CLASSES, classes_of_tasks, strict=True)
        }
        scored = {name: value for name, value in found.items() if not math.isnan(value)}
        return scored | breast_retrieval(images, texts, text_ids)


def breast_labels(breasts: Sequence[Views], task: str) -> IntArray:
    """Return the label of each breast for a zero-shot task, int64 of shape (N,): a class, or `UNKNOWN`.

    A finding is present (1) if it is in any view, and absent (0) if it is in none of the views that speak of it; "no
    finding" speaks of all ten. Views agree on density (0-3 for A-D).

    >>> cc, mlo = [("mass", 0)], [("mass", 1), ("density", 2)]
    >>> breast_labels([[cc, mlo], [cc, [("no_finding", 1)]], [[("birads", 1)]]], "mass").tolist()
    [1, 0, -1]
    """
    labels = np.full(len(breasts), UNKNOWN, np.int64)
    for row, views in enumerate(breasts):
        for name, value in (label for view in views for label in view):
            if name == task:
                labels[row] = max(labels[row], value)
            elif name == NO_FINDING and task in FINDING_NAMES:
                labels[row] = max(labels[row], 0)
    return labels


def zero_shot_auroc(images: FloatArray, classes: npt.NDArray[np.float64], labels: IntArray) -> float:
    """AUROC of two classes, or the macro one-versus-rest AUROC of more; NaN where a class does not occur.

    The scores of a breast are the means over its two images of `zero_shot_scores`.

    Args:
        images: N x 2 x D.
        classes: K x D, the embedding of each class's prompts.
        labels: N, a class or `UNKNOWN`; unknown ones are left out.

    Raises:
        MammoClipError: an embedding is not finite.
    """
    known = labels != UNKNOWN
    views = images[known].astype(np.float64)
    scores = (zero_shot_scores(views[:, 0], classes) + zero_shot_scores(views[:, 1], classes)) / 2
    if len(classes) == 2:
        return auroc(labels[known], scores[:, 1])
    return macro_auroc(labels[known], scores)


def breast_retrieval(images: FloatArray, texts: FloatArray, text_ids: IntArray) -> dict[str, float]:
    """Return `retrieval_metrics` between breasts and what is said of them.

    Two breasts are as similar as the mean over the four pairs of an image of one and a text of the other, which are
    the pairs of the multi-view objective. They say the same if both their texts are equal, in whichever order.

    Args:
        images: N x 2 x D.
        texts: N x 2 x D.
        text_ids: N x 2, int64.

    Raises:
        MammoClipError: an embedding is not finite.
    """
    _, ids = np.unique(np.sort(text_ids, axis=1), axis=0, return_inverse=True)
    return retrieval_metrics(images.mean(axis=1), texts.mean(axis=1), ids.astype(np.int64))
