"""Whether the control runs lie where chance puts them: within the range of random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mammoclip.config import EvaluateSection
from mammoclip.paper.classification import Line, find_metrics, summarise_seeds
from mammoclip.paper.inputs import Inputs
from mammoclip.paper.wording import format_number, task_name


@dataclass(frozen=True)
class Outlier:
    """A control run's zero-shot AUROC, of several classes macro AUROC, outside the range of random directions."""

    dataset: str
    task: str
    value: str
    low: str
    high: str


@dataclass(frozen=True)
class ChanceCheck:
    """A control run beside chance: ``num_within`` of ``num_compared`` tasks in the range, the others by name."""

    run: str
    num_compared: int
    outliers: Sequence[Outlier]

    @property
    def num_within(self) -> int:
        """Tasks whose zero-shot value lies in the range, its ends included."""
        return self.num_compared - len(self.outliers)


def check_chance(inputs: Inputs, evaluate: EvaluateSection) -> list[ChanceCheck]:
    """Return for every control run in how many tasks its zero-shot AUROC is one that a random direction reaches.

    Compared are the value of zero-shot on test images and the interval of ``zero-shot-random``, which is over random
    directions in the image embeddings of the same run. A run without any task that has both is left out.
    """
    checks: list[ChanceCheck] = []
    for run in inputs.controls:
        num_compared = 0
        outliers: list[Outlier] = []
        for dataset in evaluate.datasets:
            for task in evaluate.tasks:
                metric = "auroc" if inputs.num_classes(dataset, task) == 2 else "macro_auroc"
                found, random = (
                    summarise_seeds(find_metrics(run, Line(dataset, task, metric, "image", protocol, 0.0)))
                    for protocol in ("zero-shot", "zero-shot-random")
                )
                if found.value is None or random.low is None or random.high is None:
                    continue
                num_compared += 1
                if not random.low <= found.value <= random.high:
                    texts = [format_number(number) for number in (found.value, random.low, random.high)]
                    outliers.append(Outlier(dataset, task_name(task), *texts))
        if num_compared:
            checks.append(ChanceCheck(run.name, num_compared, outliers))
    return checks
