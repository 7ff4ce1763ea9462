"""Full-text mammography reports from a small grammar in the words of the BI-RADS lexicon.

A report says exactly what its exam holds: every side names its mass and its suspicious calcifications, or negates them.
Sizes are whole millimetres and no sentence holds an abbreviation with a full stop, so that
sentences can be cut at full stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mammoclip.datasets.phantom.acquisition import Laterality
from mammoclip.datasets.phantom.anatomy import Density
from mammoclip.datasets.phantom.findings import Lesion

_SIDES: dict[Laterality, str] = {"R": "right", "L": "left"}
_EXAMS = ("Bilateral digital mammography.", "Mammogram, both breasts.", "Bilateral screening mammogram.")
_INDICATIONS = (
    "Screening mammogram.",
    "Routine annual screening examination.",
    "Asymptomatic patient, screening.",
    "Screening. No current breast complaints.",
    "Family history of breast cancer, screening.",
)
_TECHNIQUES = (
    "Standard CC and MLO views of both breasts were obtained.",
    "Full-field digital mammography, two views of each breast.",
    "Bilateral craniocaudal and mediolateral oblique projections.",
    "Digital mammograms in CC and MLO projection were acquired and reviewed.",
)
_COMPARISONS = ("None.", "No prior studies available.", "None available.", "Baseline examination.")
_COMPOSITION: dict[Density, tuple[str, ...]] = {
    "A": (
        "{the_breasts} almost entirely fatty{code}.",
        "{breast_tissue} almost entirely fatty{code}.",
        "Almost entirely fatty breasts{code}.",
    ),
    "B": (
        "There are scattered areas of fibroglandular density{code}.",
        "Both breasts show scattered areas of fibroglandular density{code}.",
        "Scattered fibroglandular densities are present{code}.",
    ),
    "C": (
        "{the_breasts} heterogeneously dense{code}.",
        "{breast_tissue} heterogeneously dense{code}, which lowers the sensitivity of mammography.",
        "Heterogeneously dense parenchyma on both sides{code}.",
    ),
    "D": (
        "{the_breasts} extremely dense{code}.",
        "{breast_tissue} extremely dense{code}, which lowers the sensitivity of mammography.",
        "Extremely dense breasts{code}.",
    ),
}
_CODES = ("", "", "", " (density {d})", " (category {d})", " (ACR {d})", ", density {d}")
_MASS = (
    "There is {a} {shape} mass with {margin} margins {where}{size}.",
    "{A} {shape} mass with {margin} margins is seen {where}{size}.",
    "{A} {margin} mass, {shape} in shape, lies {where}{size}.",
    "{Margin} {shape} mass {where}{size}.",
    "{A} {shape}, {margin} mass is present {where}{size}.",
    "A mass is noted {where}{size}, {shape} with {margin} margins.",
    "High-density mass {where}{size}; its shape is {shape} and its margin {margin}.",
)
_NO_MASS = (
    "No mass is seen.",
    "There is no mass.",
    "No dominant mass is identified.",
    "There is no evidence of a mass.",
    "No mass can be detected.",
    "No suspicious mass is present.",
    "A mass is not seen.",
    "There are no masses.",
)
_CALCIFICATION = (
    "There is {a_group} of suspicious {kind} calcifications {where}{size}.",
    "Suspicious calcifications, {kind}, are seen {where}{size}.",
    "{A_group} of {kind} suspicious calcifications is present {where}{size}.",
    "Suspicious {kind} calcification {where}{size}.",
    "Grouped {kind} calcifications {where}{size} are suspicious.",
    "Suspicious calcification is noted {where}{size}, {kind} in morphology.",
)
_NO_CALCIFICATION = (
    "There is no suspicious calcification.",
    "No suspicious calcification is seen.",
    "No suspicious calcifications are identified.",
    "There are no suspicious calcifications.",
    "No suspicious grouped calcification is present.",
    "Suspicious calcifications are not seen.",
    "No evidence of suspicious calcification.",
)
_NEITHER = (
    "There is no mass or suspicious calcification.",
    "No mass and no suspicious calcification is seen.",
    "Neither a mass nor suspicious calcification is identified.",
    "No evidence of a mass or suspicious calcifications.",
)
_GROUPS = ("group", "cluster", "small group", "tight cluster")
_WHERE = (
    "in the {v} {h} quadrant at {depth} depth",
    "in the {v} {h} quadrant, {depth} depth",
    "in the {depth} third of the {v} {h} quadrant",
    "at {depth} depth in the {v} {h} breast",
    "in the {v} {h} breast, {depth} third",
)
_SPELLINGS = ("BI-RADS {n}", "BIRADS {n}", "BI-RADS category {n}", "BI-RADS: {n}", "BI-RADS assessment category {n}")
_MEANINGS = {
    1: ("negative", "normal"),
    2: ("benign", "benign findings"),
    3: ("probably benign", "short-interval follow-up suggested"),
    4: ("suspicious", "tissue diagnosis should be considered"),
    5: ("highly suggestive of malignancy", "biopsy recommended"),
}
_IMPRESSIONS = ("{Side} breast: {birads}, {meaning}.", "{Side}: {birads} ({meaning}).", "{SIDE} BREAST: {birads}.")


def write_report(
    rng: np.random.Generator,
    density: Density,
    lesions: Mapping[Laterality, Sequence[Lesion]],
    birads: Mapping[Laterality, int],
    rows_mm: float,
) -> str:
    """Return the report of one exam, sections on lines of their own.

    ``lesions`` and ``birads`` are keyed by laterality ("R", "L"); ``rows_mm`` is the nominal image height in mm, from
    which sizes follow. In FINDINGS a sentence on composition comes first, then one line per side, introduced by
    "Right breast:" or "Left breast:".
    """
    lines = [
        f"EXAM: {_pick(rng, _EXAMS)}",
        f"INDICATION: {_pick(rng, _INDICATIONS)}",
        f"TECHNIQUE: {_pick(rng, _TECHNIQUES)}",
        f"COMPARISON: {_pick(rng, _COMPARISONS)}",
        "FINDINGS:",
        _composition(rng, density),
    ]
    lines += [f"{side.capitalize()} breast: {_findings(rng, lesions[key], rows_mm)}" for key, side in _SIDES.items()]
    lines.append("IMPRESSION:")
    impression = _pick(rng, _IMPRESSIONS)
    for key, side in _SIDES.items():
        lines.append(
            impression.format(
                Side=side.capitalize(),
                SIDE=side.upper(),
                birads=_pick(rng, _SPELLINGS).format(n=birads[key]),
                meaning=_pick(rng, _MEANINGS[birads[key]]),
            )
        )
    return "\n".join(lines) + "\n"


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _composition(rng: np.random.Generator, density: Density) -> str:
    return _pick(rng, _COMPOSITION[density]).format(
        the_breasts=_pick(rng, ("The breasts are", "Both breasts are")),
        breast_tissue=_pick(rng, ("The breast tissue is", "Breast composition is", "The parenchyma is")),
        code=_pick(rng, _CODES).format(d=density),
    )


def _findings(rng: np.random.Generator, lesions: Sequence[Lesion], rows_mm: float) -> str:
    """Return one side's sentences: mass and calcification, each stated or negated, in random order."""
    by_kind = {lesion.kind: lesion for lesion in lesions}
    if not by_kind and rng.random() < 0.4:
        return _pick(rng, _NEITHER)
    mass, calcification = by_kind.get("Mass"), by_kind.get("Suspicious Calcification")
    sentences = [
        _state_mass(rng, mass, rows_mm) if mass else _pick(rng, _NO_MASS),
        _state_calcification(rng, calcification, rows_mm) if calcification else _pick(rng, _NO_CALCIFICATION),
    ]
    if rng.random() < 0.3:
        sentences.reverse()
    return " ".join(sentences)


def _place(rng: np.random.Generator, lesion: Lesion) -> str:
    vertical, horizontal = lesion.position
    return _pick(rng, _WHERE).format(v=vertical, h=horizontal, depth=lesion.depth_word)


def _size(rng: np.random.Generator, lesion: Lesion, rows_mm: float) -> str:
    millimetres = round(lesion.diameter * rows_mm)
    return _pick(rng, ("", "", f", measuring {millimetres} mm", f", about {millimetres} mm across"))


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _state_mass(rng: np.random.Generator, lesion: Lesion, rows_mm: float) -> str:
    template = _pick(rng, _MASS)
    first = lesion.margin if template.startswith("{A} {margin}") else lesion.shape
    article = _article(first)
    return template.format(
        a=article,
        A=article.capitalize(),
        shape=lesion.shape,
        margin=lesion.margin,
        Margin=lesion.margin.capitalize(),
        where=_place(rng, lesion),
        size=_size(rng, lesion, rows_mm),
    )


def _state_calcification(rng: np.random.Generator, lesion: Lesion, rows_mm: float) -> str:
    group = _pick(rng, _GROUPS)
    return _pick(rng, _CALCIFICATION).format(
        a_group=f"a {group}",
        A_group=f"A {group}",
        kind=lesion.shape,
        where=_place(rng, lesion),
        size=_size(rng, lesion, rows_mm),
    )
