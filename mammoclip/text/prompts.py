"""Prompts: sentences for findings, breast density and zero-shot tasks, in the words of the BI-RADS lexicon.

The vocabulary follows ACR BI-RADS Atlas, 5th edition, Mammography: mass shape, margin and density; morphology and
distribution of suspicious calcifications; asymmetries; associated features; location by quadrant and depth. The idea of
a prompt bank (subtype x position x depth x laterality) is Mammo-CLIP's (MICCAI 2024); the sentences are our own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from mammoclip.errors import ConfigError, DatasetError
from mammoclip.text.sections import Laterality

_QUADRANTS = ("upper outer", "upper inner", "lower outer", "lower inner")
_HALVES = ("upper", "lower", "outer", "inner")
_POSITIONS = (*(f"{quadrant} quadrant of the" for quadrant in _QUADRANTS), *_HALVES, "central")
_DEPTHS = ("anterior", "middle", "posterior")
_SIDE_WORD: dict[Laterality | None, str] = {"L": "left breast", "R": "right breast", None: "breast"}


@dataclass(frozen=True)
class FindingRule:
    """What can be said of one finding.

    Attributes:
        noun: the finding as the lexicon names it.
        subtypes: descriptors put before the noun.
        positions: where in the breast, put before "breast".
        depths: anterior, middle or posterior third.
        negatives: sentences of absence with ``{breast}`` where the breast is named.
        countable: whether the noun takes "a" or "an".
        stands_alone: whether the bare noun already means the finding ("lymph node" alone is a normal structure).
    """

    noun: str
    subtypes: tuple[str, ...]
    positions: tuple[str, ...] = _POSITIONS
    depths: tuple[str, ...] = _DEPTHS
    negatives: tuple[str, ...] = ()
    countable: bool = True
    stands_alone: bool = True


def _absent(*nouns: str) -> tuple[str, ...]:
    frames = ("no {noun}", "there is no {noun} in the {{breast}}", "no {noun} is seen in the {{breast}}",
              "the {{breast}} shows no {noun}", "no evidence of {noun} in the {{breast}}")  # fmt: skip
    return tuple(frame.format(noun=noun) for noun in nouns for frame in frames)


_CALCIFICATION_FORMS = ("amorphous", "coarse heterogeneous", "fine pleomorphic", "fine linear", "fine linear branching")
_CALCIFICATION_DISTRIBUTIONS = ("grouped", "linear", "segmental", "regional", "diffuse")

BI_RADS_RULES: Mapping[str, FindingRule] = MappingProxyType(
    {
        "mass": FindingRule(
            "mass",
            ("oval", "round", "irregular", "circumscribed", "obscured", "microlobulated", "indistinct", "spiculated",
             "high density", "equal density", "low density", "irregular spiculated", "oval circumscribed",
             "suspicious", "indeterminate", "new", "enlarging"),
            negatives=_absent("mass", "suspicious mass"),
        ),
        "suspicious calcification": FindingRule(
            "calcifications",
            ("suspicious", *_CALCIFICATION_FORMS,
             *(f"{where} {form}" for where in _CALCIFICATION_DISTRIBUTIONS for form in _CALCIFICATION_FORMS[:3]),
             "new suspicious", "indeterminate"),
            negatives=_absent("suspicious calcification", "suspicious microcalcifications"),
            countable=False,
            stands_alone=False,
        ),
        "architectural distortion": FindingRule(
            "architectural distortion",
            ("subtle", "new", "suspicious", "spiculated", "persistent"),
            negatives=_absent("architectural distortion"),
            countable=False,
        ),
        "asymmetry": FindingRule(
            "asymmetry", ("new", "indeterminate", "suspicious", "single-view"), negatives=_absent("asymmetry")
        ),
        "focal asymmetry": FindingRule(
            "focal asymmetry",
            ("new", "indeterminate", "suspicious", "developing", "persistent"),
            negatives=_absent("focal asymmetry"),
        ),
        "global asymmetry": FindingRule(
            "global asymmetry",
            ("new", "indeterminate", "suspicious", "marked"),
            positions=_HALVES,
            depths=(),
            negatives=_absent("global asymmetry"),
        ),
        "suspicious lymph node": FindingRule(
            "lymph node",
            ("suspicious", "enlarged", "rounded", "dense", "abnormal", "suspicious axillary", "enlarged axillary",
             "suspicious intramammary"),
            positions=(),
            depths=(),
            negatives=_absent("suspicious lymph node", "axillary adenopathy"),
            stands_alone=False,
        ),
        "nipple retraction": FindingRule(
            "nipple retraction",
            ("new", "unilateral", "marked", "mild"),
            positions=(),
            depths=(),
            negatives=(*_absent("nipple retraction"), "the nipple of the {breast} is not retracted"),
            countable=False,
        ),
        "skin retraction": FindingRule(
            "skin retraction",
            ("focal", "new", "marked", "mild"),
            depths=(),
            negatives=(*_absent("skin retraction"), "the skin of the {breast} is not retracted"),
            countable=False,
        ),
        "skin thickening": FindingRule(
            "skin thickening",
            ("focal", "diffuse", "new", "marked", "mild"),
            depths=(),
            negatives=(*_absent("skin thickening"), "the skin of the {breast} is of normal thickness"),
            countable=False,
        ),
    }
)  # fmt: skip
"""Finding -> rule, for the ten findings of VinDr-Mammo."""

FINDINGS: tuple[str, ...] = tuple(BI_RADS_RULES)
"""The ten findings, as the tables spell them."""

NO_FINDING = "no finding"
"""The label of an image without any finding; it has positive sentences only."""

_NORMAL_SENTENCES = (
    "no finding",
    "no suspicious finding in the {breast}",
    "the {breast} is unremarkable",
    "normal mammogram of the {breast}",
    "no mass, suspicious calcification or architectural distortion in the {breast}",
    "no mammographic evidence of malignancy in the {breast}",
)

DENSITY_PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "A": "the breasts are almost entirely fatty",
        "B": "there are scattered areas of fibroglandular density",
        "C": "the breasts are heterogeneously dense, which may obscure small masses",
        "D": "the breasts are extremely dense, which lowers the sensitivity of mammography",
    }
)
"""Breast composition category -> its sentence (ACR BI-RADS Atlas, 5th edition)."""

_ZERO_SHOT_PROMPTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mass": ("no mass", "mass"),
        "suspicious calcification": ("no suspicious calcification", "suspicious calcification"),
        "malignancy": ("no malignancy", "malignancy"),
        "density": tuple(DENSITY_PROMPTS.values()),
    }
)


class PromptGrammar:
    """Turns a finding into sentences: subtype x position x depth for presence, own sentences for absence.

    >>> grammar = PromptGrammar()
    >>> grammar.sentences("mass", laterality="L")[0]
    'there is a mass in the left breast'
    >>> grammar.sentences("mass", positive=False)[0]
    'no mass'
    """

    def __init__(self, rules: Mapping[str, FindingRule] = BI_RADS_RULES) -> None:
        """Use ``rules``, finding (lower-case, words separated by blanks) -> rule."""
        self._rules = dict(rules)

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that have a rule; `NO_FINDING` is understood beside them."""
        return tuple(self._rules)

    def sentences(self, finding: str, positive: bool = True, laterality: Laterality | None = None) -> list[str]:
        """Return every sentence for a finding, without repeats, in a fixed order with the plainest first.

        Args:
            finding: one of `findings` or `NO_FINDING`; case and underscores do not matter.
            positive: presence or absence of the finding.
            laterality: the breast that sentences name; ``None`` names no side.

        Raises:
            DatasetError: there is no rule for the finding, or absence of `NO_FINDING` is asked for.
            ValueError: ``laterality`` is none of ``"L"``, ``"R"``, ``None``.
        """
        return list(self._cached(finding, positive, laterality))

    def draw(
        self, rng: np.random.Generator, finding: str, positive: bool = True, laterality: Laterality | None = None
    ) -> str:
        """Return one of `sentences` with equal probability, drawing once from ``rng``. Raises as `sentences` does."""
        choices = self._cached(finding, positive, laterality)
        return choices[int(rng.integers(len(choices)))]

    def _cached(self, finding: str, positive: bool, laterality: Laterality | None) -> tuple[str, ...]:
        if laterality not in _SIDE_WORD:
            raise ValueError(f"laterality is {laterality!r}; expected 'L', 'R' or None.")
        name = _as_name(finding)
        breast = _SIDE_WORD[laterality]
        if name == NO_FINDING and positive:
            return _fill(_NORMAL_SENTENCES, breast)
        if name not in self._rules:
            raise DatasetError(
                f"No {'positive' if positive else 'negative'} prompt exists for the finding {finding!r}; expected "
                f"one of {', '.join(self._rules)}: correct the label or give PromptGrammar a rule for it."
            )
        rule = self._rules[name]
        return _presence(rule, breast) if positive else _fill(rule.negatives, breast)


def zero_shot_prompts(task: str) -> tuple[str, ...]:
    """Return the prompts of a zero-shot task, one per class in class order (negative, positive; density A to D).

    Raises:
        ConfigError: the task is none of mass, suspicious calcification, malignancy, density (case and underscores do
            not matter).

    >>> zero_shot_prompts("malignancy")
    ('no malignancy', 'malignancy')
    """
    name = _as_name(task)
    if name not in _ZERO_SHOT_PROMPTS:
        raise ConfigError(
            f"No zero-shot prompts exist for the task {task!r}; choose one of {', '.join(_ZERO_SHOT_PROMPTS)}."
        )
    return _ZERO_SHOT_PROMPTS[name]


def prompt_ensemble(task: str, size: int, seed: int) -> list[tuple[str, ...]]:
    """Return up to ``size`` sentences for each class of a zero-shot task, in class order.

    The first sentence of a class is its single prompt (`zero_shot_prompts`); the others are drawn from the grammar,
    without a side and without repeats. Density and malignancy have their single prompts only.

    >>> prompt_ensemble("mass", 1, seed=0)
    [('no mass',), ('mass',)]
    """
    singles = zero_shot_prompts(task)
    grammar = PromptGrammar()
    if _as_name(task) not in grammar.findings:
        return [(prompt,) for prompt in singles]
    rng = np.random.default_rng(seed)
    ensembles: list[tuple[str, ...]] = []
    for prompt, positive in zip(singles, (False, True), strict=True):
        others = [sentence for sentence in grammar.sentences(task, positive) if sentence != prompt]
        drawn = rng.permutation(len(others))[: size - 1]
        ensembles.append((prompt, *(others[index] for index in drawn)))
    return ensembles


def _as_name(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


@lru_cache(maxsize=256)
def _fill(templates: tuple[str, ...], breast: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(template.format(breast=breast) for template in templates))


@lru_cache(maxsize=256)
def _presence(rule: FindingRule, breast: str) -> tuple[str, ...]:
    subtypes = ("", *rule.subtypes) if rule.stands_alone else rule.subtypes
    combinations = itertools.product(subtypes, ("", *rule.positions), ("", *rule.depths))
    return tuple(dict.fromkeys(_presence_sentence(rule, breast, *words) for words in combinations))


def _presence_sentence(rule: FindingRule, breast: str, subtype: str, position: str, depth: str) -> str:
    phrase = f"{subtype} {rule.noun}".strip()
    article = ("an " if phrase[0] in "aeio" else "a ") if rule.countable else ""
    verb = "are" if rule.noun.endswith("calcifications") else "is"
    where = " ".join(word for word in (position, breast) if word)
    at_depth = f" at {depth} depth" if depth else ""
    return f"there {verb} {article}{phrase} in the {where}{at_depth}"
