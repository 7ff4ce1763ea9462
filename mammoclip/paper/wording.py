"""How runs, tasks, metrics and numbers are put into words, the same in every table and figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from mammoclip.config import Control

NOT_AVAILABLE = "n/a"

TASKS: Mapping[str, str] = MappingProxyType(
    {"mass": "Mass", "suspicious_calcification": "Suspicious calcification", "density": "Breast density"}
)
BINARY_TASKS = ("mass", "suspicious_calcification")
CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType({"density": ("A", "B", "C", "D")})

PROTOCOLS = ("zero-shot", "zero-shot-random", "probe", "probe-shuffled")
PROTOCOL_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "zero-shot": "image embeddings are compared with the mean embedding of each class's prompts; no label is used",
        "zero-shot-random": "control: random vectors in place of the prompts, many times; the interval is what chance "
        "looks like for these image embeddings, and a control run should lie in it",
        "probe": "a linear classifier fitted on frozen image features of the training patients; a control run need not "
        "be at chance here, because its encoder may know images (ImageNet weights, the image-image term)",
        "probe-shuffled": "control: the same probe fitted on labels permuted between patients, several times; the mean "
        "should be at chance, and the interval is that of the permutations",
    }
)

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "macro_auroc": "macro AUROC",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "kappa": "quadratic kappa",
    }
)
HEADLINE_METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mass": ("auroc",),
        "suspicious_calcification": ("auroc",),
        "density": ("macro_auroc", "balanced_accuracy", "kappa"),
    }
)

ROLES: Mapping[Control, str] = MappingProxyType(
    {
        "none": "trained on the reports as they are",
        "untrained": "control: initial weights, never trained",
        "shuffled_reports": "control: trained on reports permuted between patients",
    }
)


def format_number(value: float, digits: int = 2) -> str:
    """Return ``value`` with fixed digits and a true minus sign, or n/a for NaN; never minus zero.

    >>> format_number(-0.001), format_number(float("nan"))
    ('0.00', 'n/a')
    """
    if math.isnan(value):
        return NOT_AVAILABLE
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def format_interval(value: float, low: float, high: float) -> str:
    """Return ``value [low, high]``, or n/a when the value is undefined.

    >>> format_interval(0.871, 0.824, 0.916)
    '0.87 [0.82, 0.92]'
    """
    if math.isnan(value):
        return NOT_AVAILABLE
    bounds = NOT_AVAILABLE if math.isnan(low) or math.isnan(high) else f"{format_number(low)}, {format_number(high)}"
    return f"{format_number(value)} [{bounds}]"


def format_percent(fraction: float) -> str:
    """Return a fraction in per cent, with as many digits as it has.

    >>> format_percent(0.95), format_percent(0.995)
    ('95 %', '99.5 %')
    """
    return f"{100 * fraction:g} %"


def finding_name(finding: str) -> str:
    """Return the name of a finding or task as it is shown.

    >>> finding_name("suspicious_calcification")
    'suspicious calcification'
    """
    return finding.replace("_", " ")
