"""The words of what is said of a breast beside its findings: composition, assessment, malignancy, implants and so on.

Breast composition and assessment categories are those of ACR BI-RADS Atlas, 5th edition.
"""

from __future__ import annotations

from mammoclip.text.prompts.grammar import Phrase, Production, Values
from mammoclip.text.prompts.phrasing import (
    AXILLA,
    BREAST,
    CENTRAL,
    HALVES,
    QUADRANTS,
    SIDED,
    UNSIDED,
    absent,
    phrases,
    present,
)


def _composition(category: str, *wordings: str) -> tuple[Production, ...]:
    """Return how a breast is said to be of a composition; the first wording is the one of the Atlas."""
    tissue = tuple(map(Phrase, wordings))
    return (
        Production(
            ("the breasts are {noun}", "both breasts are {noun}", "the breast tissue is {noun}"), tissue, sides=UNSIDED
        ),
        Production(
            ("the {where} is {noun}", "the tissue of the {where} is {noun}", "the parenchyma of the {where} is {noun}"),
            tissue,
            sides=SIDED,
        ),
        *_composition_category(category),
    )


def _composition_category(category: str) -> tuple[Production, ...]:
    letter = (Phrase(category),)
    return (
        Production(
            ("breast density is category {noun}", "breast composition is category {noun}", "acr density {noun}"),
            letter,
            sides=UNSIDED,
        ),
        Production(
            (
                "the density of the {where} is category {noun}",
                "the composition of the {where} is category {noun}",
                "acr density {noun} for the {where}",
            ),
            letter,
            sides=SIDED,
        ),
    )


_SCATTERED = (Phrase("scattered areas of fibroglandular density", number="plural"),)

_DENSITY: Values = {
    0: _composition("a", "almost entirely fatty"),
    1: (
        Production(
            ("there are {noun}", "{noun} are seen", "{noun} are present", "both breasts show {noun}"),
            _SCATTERED,
            sides=UNSIDED,
        ),
        Production(
            (
                "there are {noun} in the {where}",
                "{noun} are seen in the {where}",
                "{noun} are present in the {where}",
                "the {where} shows {noun}",
            ),
            _SCATTERED,
            sides=SIDED,
        ),
        *_composition_category("b"),
    ),
    2: _composition("c", "heterogeneously dense, which may obscure small masses", "heterogeneously dense"),
    3: _composition("d", "extremely dense, which lowers the sensitivity of mammography", "extremely dense"),
}

_ASSESSMENTS = (
    "incomplete",
    "negative",
    "benign",
    "probably benign",
    "suspicious",
    "highly suggestive of malignancy",
    "known biopsy-proven malignancy",
)


def _assessment(category: int) -> tuple[Production, ...]:
    number, meaning = Phrase(str(category)), Phrase(_ASSESSMENTS[category])
    both = (number, Phrase(f"{category}, {meaning.words}"))
    return (
        Production(("birads {noun}", "birads category {noun}", "the assessment is birads {noun}"), both, sides=UNSIDED),
        Production(("the assessment is {noun}",), (meaning,), sides=UNSIDED),
        Production(("birads {noun} for the {where}", "birads category {noun} for the {where}"), (number,), sides=SIDED),
        Production(
            ("the {where} is birads {noun}", "the assessment of the {where} is birads {noun}"), both, sides=SIDED
        ),
        Production(("the assessment of the {where} is {noun}",), (meaning,), sides=SIDED),
    )


_CANCER = tuple(
    phrase
    for noun in ("malignancy", "cancer", "carcinoma")
    for phrase in phrases(noun, None, "biopsy-proven", "newly diagnosed", number="uncounted")
)
_NO_CANCER = (Phrase("malignancy", number="uncounted"), Phrase("cancer", number="uncounted"))
_NO_SIGN_OF_CANCER = (
    Production(
        ("no mammographic evidence of {noun}", "there is no mammographic evidence of {noun}"), _NO_CANCER, sides=UNSIDED
    ),
    Production(
        (
            "no mammographic evidence of {noun} in the {where}",
            "there is no mammographic evidence of {noun} in the {where}",
            "the {where} shows no sign of {noun}",
        ),
        _NO_CANCER,
    ),
)

# Two names each for the pocket behind and the pocket in front of the pectoral muscle.
_POCKETS = {
    None: (None,),
    "subpectoral": ("subpectoral", "retropectoral"),
    "subglandular": ("subglandular", "prepectoral"),
}
_IMPLANTS = tuple(
    Phrase(" ".join(filter(None, (word, material, "implant"))), " ".join(filter(None, (pocket, material))) or None)
    for pocket, words in _POCKETS.items()
    for material in (None, "silicone", "saline")
    for word in words
)

_SCARS = (
    *phrases("scar", None, "surgical"),
    Phrase("postsurgical scar", "surgical"),
    *phrases("scar", "lumpectomy", "biopsy"),
    Phrase("post-biopsy scar", "biopsy"),
)

ATTRIBUTE_WORDS: dict[str, Values] = {
    "density": _DENSITY,
    "birads": {category: _assessment(category) for category in range(len(_ASSESSMENTS))},
    "malignancy": {0: (*absent(_NO_CANCER), *_NO_SIGN_OF_CANCER), 1: present(_CANCER)},
    "implant": {
        0: absent((*phrases("implant", None, "silicone", "saline"), Phrase("implants", number="plural"))),
        1: present(_IMPLANTS),
    },
    "scar": {0: absent(_SCARS), 1: present(_SCARS, (*BREAST, *QUADRANTS, *HALVES, *CENTRAL))},
    "lymph node": {
        0: (
            *absent((Phrase("lymph node"), Phrase("lymph nodes", number="plural")), AXILLA),
            *absent((Phrase("intramammary lymph node", "intramammary"),)),
        ),
        1: (
            *present(
                (
                    *phrases("lymph node", None, "normal", "benign"),
                    *phrases("lymph nodes", None, "normal", "benign", number="plural"),
                ),
                AXILLA,
            ),
            *present(phrases("lymph node", "intramammary", "benign intramammary"), (*BREAST, *QUADRANTS)),
        ),
    },
}
"""Attribute -> value -> how it is said; a lymph node is a normal or benign one."""
