"""Clustered bootstrap of every metric: ours against a loop over scikit-learn on the same resamples, in one run.

20,000 predictions of 5,000 patients by default, 2,000 resamples: a finding in 2 % of the images (as cancer in the RSNA
data) and in 50 % (the most costly share), and four densities. The loop would take minutes, so it does the first
``--loop-resamples`` of the resamples, its time is extrapolated from these, and the results are compared on them. Where
scikit-learn has no such metric, the loop calls a line of numpy.

    python benchmarks/bench_bootstrap.py [--patients 5000] [--resamples 2000] [--loop-resamples 20]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import sklearn.metrics

from mammoclip.evaluation import calibration, metrics
from mammoclip.evaluation.resampling import Draws, resampled
from mammoclip.evaluation.statistics import clustered_bootstraps


def sensitivity(labels, scores, specificity):
    """Best point of the ROC curve with at least this specificity."""
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    return tpr[1 - fpr >= specificity - 1e-9].max()


def specificity(labels, scores, sensitivity):
    """Best point of the ROC curve with at least this sensitivity."""
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    return 1 - fpr[tpr >= sensitivity - 1e-9].min()


def calibration_error(right, confidence):
    """Bins by hand."""
    bins = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1], right=True)
    return sum(abs((confidence - right)[bins == k].sum()) for k in range(15)) / len(right)


def of_classes(metric: Callable[..., float]) -> Callable[..., float]:
    """Hand the likeliest class to ``metric``."""
    return lambda labels, scores: metric(labels, scores.argmax(axis=1))


# Name -> ours, the loop's.
BINARY = {
    "auroc": (metrics.auroc, sklearn.metrics.roc_auc_score),
    "auprc": (metrics.auprc, sklearn.metrics.average_precision_score),
    "pF1 (numpy)": (metrics.probabilistic_f1, lambda y, p: 2 * p[y == 1].sum() / (p.sum() + y.sum())),
    "sensitivity at 90 %": (metrics.sensitivity_at_specificity, partial(sensitivity, specificity=0.9)),
    "sensitivity at 95 %": (
        partial(metrics.sensitivity_at_specificity, specificity=0.95),
        partial(sensitivity, specificity=0.95),
    ),
    "specificity at 90 %": (metrics.specificity_at_sensitivity, partial(specificity, sensitivity=0.9)),
    "specificity at 95 %": (
        partial(metrics.specificity_at_sensitivity, sensitivity=0.95),
        partial(specificity, sensitivity=0.95),
    ),
    "brier": (calibration.brier_score, sklearn.metrics.brier_score_loss),
    "ece (numpy)": (calibration.expected_calibration_error, calibration_error),
}
DENSITY = {
    "macro_auroc": (metrics.macro_auroc, partial(sklearn.metrics.roc_auc_score, multi_class="ovr")),
    "accuracy": (metrics.accuracy, of_classes(sklearn.metrics.accuracy_score)),
    "balanced_accuracy": (metrics.balanced_accuracy, of_classes(sklearn.metrics.balanced_accuracy_score)),
    "kappa (quadratic)": (
        partial(metrics.cohen_kappa, quadratic=True),
        of_classes(partial(sklearn.metrics.cohen_kappa_score, weights="quadratic")),
    ),
    "brier": (calibration.brier_score, partial(sklearn.metrics.brier_score_loss, scale_by_half=False)),
    "ece (numpy)": (
        calibration.expected_calibration_error,
        lambda y, p: calibration_error(p.argmax(axis=1) == y, p.max(axis=1)),
    ),
}


def loop(metric, labels, scores, clusters, num_resamples: int, seed: int) -> np.ndarray:
    """Repeat the cases of each resample and call ``metric``; the draws are those of the first of `Draws.of`."""
    names, cluster_of_case = np.unique(clusters, return_inverse=True)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_resamples):
        multiplicities = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        cases = np.repeat(np.arange(len(labels)), multiplicities[cluster_of_case])
        values.append(metric(labels[cases], scores[cases]))
    return np.array(values)


def compare(title: str, chosen: dict, labels, scores, clusters, num_resamples: int, num_loop: int) -> None:
    """Print a line per metric and one of all of them on the same resamples."""
    print(f"\n{title}\n{'':20}{'ours':>10}{'loop (*)':>12}{'ratio':>8}{'difference':>13}")
    loop_total = 0.0
    for name, (ours, theirs) in chosen.items():
        start = time.perf_counter()
        clustered_bootstraps({name: ours}, labels, scores, clusters, num_resamples=num_resamples, seed=0)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        expected = loop(theirs, labels, scores, clusters, num_loop, seed=0)
        loop_seconds = (time.perf_counter() - start) / num_loop * num_resamples
        loop_total += loop_seconds
        difference = np.abs(resampled(ours, labels, scores, Draws.of(clusters, num_loop, 0)) - expected).max()
        print(f"{name:20}{seconds:8.2f} s{loop_seconds:10.1f} s{loop_seconds / seconds:8.0f}{difference:13.0e}")
    start = time.perf_counter()
    together = {name: ours for name, (ours, _) in chosen.items()}
    clustered_bootstraps(together, labels, scores, clusters, num_resamples=num_resamples, seed=0)
    seconds = time.perf_counter() - start
    print(f"{'all, drawn once':20}{seconds:8.2f} s{loop_total:10.1f} s{loop_total / seconds:8.0f}")


def main() -> None:
    """Print the times of both, their ratio and the largest difference on any resample that the loop did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--loop-resamples", type=int, default=20)
    args = parser.parse_args()
    num_loop = min(args.loop_resamples, args.resamples)

    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(args.patients), 4)
    print(f"{clusters.size} predictions, {args.patients} patients, {args.resamples} resamples")
    print(f"(*) extrapolated from {num_loop} resamples")
    for share in (0.02, 0.5):
        labels = (rng.random(clusters.size) < share).astype(np.int64)
        scores = 1 / (1 + np.exp(3 - 2 * labels - rng.normal(size=clusters.size)))
        title = f"a finding in {share:.0%} of the images"
        compare(title, BINARY, labels, scores, clusters, args.resamples, num_loop)
    labels = rng.choice(4, clusters.size, p=[0.05, 0.2, 0.65, 0.1])
    scores = np.exp(np.eye(4)[labels] + rng.normal(size=(clusters.size, 4)))
    scores /= scores.sum(axis=1, keepdims=True)
    compare("density, four classes", DENSITY, labels, scores, clusters, args.resamples, num_loop)


if __name__ == "__main__":
    main()
