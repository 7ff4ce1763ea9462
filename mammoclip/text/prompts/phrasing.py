"""Frames and places of prompts: how presence and absence are said, and where in the breast.

Location follows ACR BI-RADS Atlas, 5th edition: quadrants, halves, central, retroareolar, axillary tail, and the depth
as a third of the breast.
"""

from __future__ import annotations

from collections.abc import Sequence

from mammoclip.text.prompts.grammar import ANY_SIDE, Number, Phrase, Place, Production, Side

UNSIDED: tuple[Side, ...] = (None,)
SIDED: tuple[Side, ...] = ("L", "R")

BREAST = (Place(),)
AXILLA = (Place("{side}axilla", "axilla"),)
QUADRANTS = tuple(
    Place(f"{quadrant} quadrant of the {{side}}breast", f"{quadrant} quadrant")
    for quadrant in ("upper outer", "upper inner", "lower outer", "lower inner")
)
HALVES = tuple(Place(f"{half} {{side}}breast", half) for half in ("upper", "lower", "outer", "inner"))
CENTRAL = (Place("central {side}breast", "central"),)
RETROAREOLAR = (Place("retroareolar region of the {side}breast", "retroareolar"),)
AXILLARY_TAIL = (Place("axillary tail of the {side}breast", "axillary tail"),)


def at_depths(places: Sequence[Place]) -> tuple[Place, ...]:
    """Return each place without a depth and at each of the three."""
    depths = (None, "anterior", "middle", "posterior")
    return tuple(Place(place.words, place.position, depth) for place in places for depth in depths)


# The region behind the nipple is anterior and the tail lies beside the thirds: both go without a depth.
ANYWHERE = (*at_depths((*BREAST, *QUADRANTS, *HALVES, *CENTRAL)), *RETROAREOLAR, *AXILLARY_TAIL)
# What is seen in one projection only lies in a known half, but in no known quadrant.
IN_ONE_PROJECTION = (*at_depths((*BREAST, *HALVES, *CENTRAL)), *RETROAREOLAR)


def phrases(noun: str, *subtypes: str | None, number: Number = "singular") -> tuple[Phrase, ...]:
    """Return the noun behind each subtype; None stands for the bare noun."""
    return tuple(Phrase(f"{subtype} {noun}" if subtype else noun, subtype, number) for subtype in subtypes)


def present(named: Sequence[Phrase], places: Sequence[Place] = BREAST) -> tuple[Production, ...]:
    """Return how the presence of what is named is said; the first place is the whole of the others."""
    return (
        Production(("{noun}", "there {be} {phrase}", "{phrase} {be} seen"), tuple(named), sides=UNSIDED),
        Production(
            (
                "there {be} {phrase} in the {where}{depth}",
                "{phrase} {be} seen in the {where}{depth}",
                "{phrase} {be} present in the {where}{depth}",
                "{phrase} {be} noted in the {where}{depth}",
                "{phrase} {be} identified in the {where}{depth}",
                "{noun} in the {where}{depth}",
            ),
            tuple(named),
            tuple(places),
        ),
        Production(("the {where} shows {phrase}",), tuple(named), tuple(places[:1])),
    )


def absent(named: Sequence[Phrase], places: Sequence[Place] = BREAST) -> tuple[Production, ...]:
    """Return how the absence of what is named is said."""
    return (
        Production(
            ("no {noun}", "there {be} no {noun}", "no {noun} {be} seen", "there is no evidence of {phrase}"),
            tuple(named),
            sides=UNSIDED,
        ),
        Production(
            (
                "there {be} no {noun} in the {where}",
                "no {noun} {be} seen in the {where}",
                "no {noun} {be} identified in the {where}",
                "the {where} shows no {noun}",
                "no {noun} in the {where}",
                "no evidence of {phrase} in the {where}",
                "there is no evidence of {phrase} in the {where}",
            ),
            tuple(named),
            tuple(places),
        ),
    )


def whole_sentences(*frames: str, sides: tuple[Side, ...] = ANY_SIDE) -> Production:
    """Return frames that need no phrase."""
    return Production(frames, (Phrase(""),), sides=sides)
