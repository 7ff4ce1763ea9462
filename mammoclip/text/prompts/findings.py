"""The words of the ten findings of VinDr-Mammo, and of an image without any.

The vocabulary follows ACR BI-RADS Atlas, 5th edition, Mammography: mass shape, margin and density; morphology and
distribution of suspicious calcifications; asymmetries; associated features. The idea of a prompt bank (subtype x
position x depth x laterality) is Mammo-CLIP's (MICCAI 2024); the sentences are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from mammoclip.text.prompts.grammar import Phrase, Place, Production, Values
from mammoclip.text.prompts.phrasing import (
    ANYWHERE,
    AXILLA,
    BREAST,
    CENTRAL,
    HALVES,
    IN_ONE_PROJECTION,
    QUADRANTS,
    UNSIDED,
    absent,
    phrases,
    present,
    whole_sentences,
)


def _joined(*choices: tuple[str, ...]) -> tuple[str, ...]:
    """Return one word of each choice, in every combination; "" leaves its choice out."""
    return tuple(" ".join(filter(None, words)) for words in product(*choices))


# Shape, margin, density, as the Atlas orders them. Two families keep apart what is hardly ever seen together.
_MASS_SUBTYPES = (
    *_joined(
        ("", "oval", "round"),
        ("", "circumscribed", "obscured"),
        ("", "fat-containing", "low density", "equal density"),
    ),
    *_joined(
        ("", "irregular"),
        ("", "microlobulated", "indistinct", "spiculated"),
        ("", "equal density", "high density"),
    ),
    *("suspicious", "indeterminate", "new", "enlarging"),
)

_FORMS = ("amorphous", "coarse heterogeneous", "fine pleomorphic")
_ALL_FORMS = (*_FORMS, "fine linear", "fine linear branching")

# How far a distribution reaches decides what can be said of the place.
_FOCAL_CALCIFICATIONS = (
    Phrase("suspicious calcifications", number="plural"),
    Phrase("suspicious microcalcifications", number="plural"),
    Phrase("new suspicious calcifications", "new", "plural"),
    *phrases("calcifications", "indeterminate", *_ALL_FORMS, number="plural"),
    *phrases("calcifications", *_joined(("grouped",), _ALL_FORMS), *_joined(("linear",), _FORMS), number="plural"),
    *(Phrase(f"group of {form} calcifications", f"grouped {form}") for form in _ALL_FORMS),
)
_REGIONAL_CALCIFICATIONS = phrases(
    "calcifications", *_joined(("segmental",), _ALL_FORMS), *_joined(("regional",), _FORMS), number="plural"
)
_DIFFUSE_CALCIFICATIONS = phrases("calcifications", *_joined(("diffuse",), _FORMS), number="plural")
_NO_CALCIFICATION = (
    Phrase("suspicious calcification", number="uncounted"),
    Phrase("suspicious calcifications", number="plural"),
    Phrase("suspicious microcalcifications", number="plural"),
)

_SUSPICIOUS_NODES = (
    Phrase("suspicious lymph node"),
    Phrase("suspicious lymph nodes", number="plural"),
    Phrase("lymphadenopathy", number="uncounted"),
)
_NODE_SUBTYPES = ("enlarged", "rounded", "dense", "abnormal")
_SKIN = (*BREAST, *QUADRANTS, *HALVES)


def _counted(noun: str, plural: str, *subtypes: str, places: Sequence[Place]) -> Values:
    none = (Phrase(noun), Phrase(plural, number="plural"), *phrases(noun, "suspicious"))
    return {0: absent(none), 1: present(phrases(noun, None, *subtypes), places)}


def _uncounted(
    noun: str,
    *subtypes: str,
    places: Sequence[Place],
    also_absent: Sequence[Production] = (),
    also_present: Sequence[Production] = (),
) -> Values:
    named = phrases(noun, None, *subtypes, number="uncounted")
    return {0: (*absent(named[:1]), *also_absent), 1: (*present(named, places), *also_present)}


FINDING_WORDS: dict[str, Values] = {
    "mass": _counted("mass", "masses", *dict.fromkeys(filter(None, _MASS_SUBTYPES)), places=ANYWHERE),
    "suspicious calcification": {
        0: absent(_NO_CALCIFICATION),
        1: (
            Production(("{noun}",), (Phrase("suspicious calcification"),), sides=UNSIDED),
            *present(_FOCAL_CALCIFICATIONS, ANYWHERE),
            *present(_REGIONAL_CALCIFICATIONS, (*BREAST, *QUADRANTS, *HALVES, *CENTRAL)),
            *present(_DIFFUSE_CALCIFICATIONS),
        ),
    },
    "architectural distortion": _uncounted(
        "architectural distortion", "subtle", "new", "suspicious", "persistent", places=ANYWHERE
    ),
    "asymmetry": _counted(
        "asymmetry",
        "asymmetries",
        *("new", "indeterminate", "suspicious", "single-view"),
        places=IN_ONE_PROJECTION,
    ),
    "focal asymmetry": _counted(
        "focal asymmetry",
        "focal asymmetries",
        *("new", "indeterminate", "suspicious", "developing", "persistent"),
        places=ANYWHERE,
    ),
    "global asymmetry": _counted(
        "global asymmetry",
        "global asymmetries",
        *("new", "indeterminate", "suspicious", "marked"),
        places=(*BREAST, *HALVES),
    ),
    "suspicious lymph node": {
        0: absent((*_SUSPICIOUS_NODES, *phrases("lymph nodes", "enlarged", "abnormal", number="plural")), AXILLA),
        1: (
            *present(
                (
                    *_SUSPICIOUS_NODES,
                    *phrases("lymph node", *_NODE_SUBTYPES),
                    *phrases("lymph nodes", *_NODE_SUBTYPES, number="plural"),
                ),
                AXILLA,
            ),
            *present((Phrase("suspicious intramammary lymph node", "intramammary"),), (*BREAST, *QUADRANTS)),
        ),
    },
    "nipple retraction": _uncounted(
        "nipple retraction",
        *("new", "unilateral", "marked", "mild"),
        places=BREAST,
        also_absent=[whole_sentences("the nipple of the {where} is not retracted")],
        also_present=[whole_sentences("the nipple of the {where} is retracted")],
    ),
    "skin retraction": _uncounted(
        "skin retraction",
        *("focal", "new", "marked", "mild"),
        places=_SKIN,
        also_absent=[whole_sentences("the skin of the {where} is not retracted")],
        also_present=[whole_sentences("the skin of the {where} is retracted")],
    ),
    "skin thickening": _uncounted(
        "skin thickening",
        *("focal", "new", "marked", "mild"),
        places=_SKIN,
        also_absent=[whole_sentences("the skin of the {where} is of normal thickness")],
        also_present=[
            whole_sentences("the skin of the {where} is thickened"),
            *present(phrases("skin thickening", "diffuse", number="uncounted")),
        ],
    ),
}
"""Finding -> value -> how it is said."""

NO_FINDING_WORDS: Values = {
    1: (
        whole_sentences(
            "no finding",
            "there is no suspicious finding",
            "no abnormality is seen",
            "the breasts are unremarkable",
            "normal mammogram",
            sides=UNSIDED,
        ),
        whole_sentences(
            "there is no suspicious finding in the {where}",
            "no suspicious finding is seen in the {where}",
            "no abnormality is seen in the {where}",
            "the {where} shows no abnormality",
            "the {where} is unremarkable",
            "normal mammogram of the {where}",
            "no mass, suspicious calcification or architectural distortion in the {where}",
        ),
    )
}
"""How the absence of every finding is said: value 1 of its label."""
