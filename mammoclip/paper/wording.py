"""How runs, tasks, metrics and numbers are put into words, the same in every table and figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mammoclip.config import FACTOR, Control
from mammoclip.localization.protocols import CENTRE_PRIOR, GRAD_CAM, RANDOM, SHUFFLED, SIMILARITY_MAP

NOT_AVAILABLE = "n/a"

_TASKS: Mapping[str, str] = MappingProxyType({"density": "Breast density", "birads": "BI-RADS"})
CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType({"density": ("A", "B", "C", "D")})

PROTOCOL_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "zero-shot": "image embeddings are compared with the mean embedding of each class's prompts; no label is used",
        "zero-shot-random": "control: random vectors in place of the prompts, many times; the interval is what chance "
        "looks like for these image embeddings, and a control run should lie in it",
        "linear-probe": "a linear classifier fitted on frozen image features of the training patients; a control run "
        "need not be at chance here, because its encoder may know images (ImageNet weights, the image-image term)",
        "linear-probe-shuffled": "control: the same probe fitted on labels permuted between patients, several times; "
        "the mean should be at chance, and the interval is that of the permutations",
        "fine-tune": "the image encoder and a linear classifier trained together on the training patients",
        "majority": "control: every image is called what most test images are",
    }
)
PROTOCOLS = tuple(PROTOCOL_MEANINGS)
TESTED_PROTOCOLS = ("zero-shot", "linear-probe", "fine-tune")
"""Protocols that the matrix of evaluations names; the others are controls of theirs."""

LOCALIZATION_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "detection-frozen": "RetinaNet on the image encoder as it was pretrained; pyramid and heads learn true boxes",
        "detection-fine-tune": "RetinaNet whose image encoder learns true boxes too",
        FACTOR: "Mammo-FActOR: maps of the frozen encoder's channels that fit the sentences of a finding; it "
        "learns labels of images and never sees a box",
        GRAD_CAM: "gradient of the image's similarity to the sentences of a finding; nothing is trained",
        SIMILARITY_MAP: "similarity of every cell of the encoder's maps to the sentences of a finding; nothing is "
        "trained",
        CENTRE_PRIOR: "control: a map and a box around the middle of the image, whatever it shows",
        RANDOM: "control: maps and boxes of chance",
    }
)
"""Each protocol of localisation, in the order of the tables."""
LOCALIZATION_PROTOCOLS = tuple(name + end for name in LOCALIZATION_MEANINGS for end in ("", SHUFFLED))
"""Each with its control, the same boxes against the true boxes of other patients, next to it."""

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "auroc": "AUROC",
        "macro_auroc": "macro AUROC",
        "balanced_accuracy": "balanced accuracy",
        "kappa": "quadratic kappa",
    }
)
"""The metrics of the classification table."""

ROLES: Mapping[Control, str] = MappingProxyType(
    {
        "none": "trained on the reports as they are",
        "untrained": "control: initial weights, never trained",
        "shuffled_reports": "control: trained on reports permuted between patients",
    }
)


def format_number(value: float | None, digits: int = 2) -> str:
    """Return ``value`` with fixed digits and a true minus sign, or n/a for None and NaN; never minus zero.

    >>> format_number(-0.001), format_number(None)
    ('0.00', 'n/a')
    """
    if value is None or math.isnan(value):
        return NOT_AVAILABLE
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def format_interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """Return ``value [low, high]``, or n/a when the value is undefined.

    >>> format_interval(0.871, 0.824, 0.916)
    '0.87 [0.82, 0.92]'
    """
    text, bounds = format_number(value, digits), [format_number(bound, digits) for bound in (low, high)]
    if text == NOT_AVAILABLE:
        return NOT_AVAILABLE
    return f"{text} [{NOT_AVAILABLE if NOT_AVAILABLE in bounds else ', '.join(bounds)}]"


def format_count(count: int | None) -> str:
    """Return a count, or n/a for None."""
    return NOT_AVAILABLE if count is None else str(count)


def format_p_value(p: float | None) -> str:
    """Return a p-value with three digits, and what they cannot show as below them.

    >>> format_p_value(0.0123), format_p_value(0.0004)
    ('0.012', '< 0.001')
    """
    return "< 0.001" if p is not None and p < 0.0005 else format_number(p, 3)


def explain_missing(reason: str | None) -> str:
    """Return n/a and why.

    >>> explain_missing("there are no validation images")
    'n/a: there are no validation images'
    """
    return f"{NOT_AVAILABLE}: {reason}" if reason else NOT_AVAILABLE


def format_training(fraction: float) -> str:
    """Return the share of the training patients; nothing is trained on a share of 0.

    >>> format_training(0.1), format_training(0.0)
    ('10 %', '-')
    """
    return format_percent(fraction) if fraction else "-"


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


def task_name(task: str) -> str:
    """Return the name of a task as a title.

    >>> task_name("skin_retraction"), task_name("density")
    ('Skin retraction', 'Breast density')
    """
    name = finding_name(task)
    return _TASKS.get(task, f"{name[0].upper()}{name[1:]}")


def class_names(attribute: str, values: Sequence[int]) -> list[str]:
    """Return the names of the classes that are these values of a label: letters of the density, else numbers.

    >>> class_names("density", [0, 3]), class_names("birads", [4, 5])
    (['A', 'D'], ['4', '5'])
    """
    names = dict(enumerate(CLASSES.get(attribute, ())))
    return [names.get(value, str(value)) for value in values]
