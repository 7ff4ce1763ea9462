"""Clustered bootstrap of AUROC: ours against a loop over scikit-learn, same resamples, in one run.

The cases are shaped like the RSNA data (4 images a patient, about 2 % positive).
Run: ``python benchmarks/bench_bootstrap.py``.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import sklearn.metrics

from mammoclip.evaluation.metrics import auroc
from mammoclip.evaluation.statistics import clustered_bootstrap


def naive_interval(labels, scores, clusters, num_resamples: int, seed: int) -> tuple[float, float]:
    """Repeat the cases of each resample and call ``roc_auc_score``; the draws are those of `clustered_bootstrap`."""
    names, cluster_of_case = np.unique(clusters, return_inverse=True)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_resamples):
        multiplicities = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        cases = np.repeat(np.arange(len(labels)), multiplicities[cluster_of_case])
        values.append(sklearn.metrics.roc_auc_score(labels[cases], scores[cases]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Print the time of both, their ratio and the largest difference of the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=2500)
    parser.add_argument("--resamples", type=int, default=500)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(args.patients), 4)
    labels = (rng.random(clusters.size) < 0.02).astype(np.int64)
    scores = np.round(labels + rng.normal(size=clusters.size), 2)

    start = time.perf_counter()
    low, high = naive_interval(labels, scores, clusters, args.resamples, seed=0)
    naive_seconds = time.perf_counter() - start
    start = time.perf_counter()
    interval = clustered_bootstrap(auroc, labels, scores, clusters, num_resamples=args.resamples, seed=0)
    seconds = time.perf_counter() - start

    print(f"{clusters.size} images, {args.patients} patients, {args.resamples} resamples")
    print(f"loop over scikit-learn  {naive_seconds:8.3f} s")
    print(f"clustered_bootstrap     {seconds:8.3f} s")
    print(f"ratio                   {naive_seconds / seconds:8.1f}")
    print(f"largest difference      {max(abs(low - interval.low), abs(high - interval.high)):8.1e}")


if __name__ == "__main__":
    main()
