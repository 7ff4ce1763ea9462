"""Where a sentence mentions a finding, in the words of the BI-RADS lexicon (ACR BI-RADS Atlas, 5th edition).

Decisions: a nodule is a mass, a lesion or a density is nothing in particular; a palpable mass is the patient's
complaint, not a finding of the image; a developing asymmetry is an asymmetry; a distortion is an architectural
distortion; inversion of the nipple is not retraction. Calcifications and lymph nodes are findings only when something
says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PLAIN_FINDINGS = re.compile(
    r"""(?<![\w-])(?:
      (?P<mass> (?<!palpable\ ) (?:mass(?:es)?|nodules?) \b (?!-like|[ ](?:effect|index)\b) )
    | (?P<architectural_distortion> (?:architectural[ ])?distortions?\b )
    | (?P<focal_asymmetry> focal (?=(?:[ ](?:or|and)[ ]global)?[ ]asymmetr(?:y|ies|ic[ ]densit)) )
    | (?P<global_asymmetry> global (?=(?:[ ](?:or|and)[ ]focal)?[ ]asymmetr(?:y|ies|ic[ ]densit)) )
    | (?P<asymmetry> (?<!focal\ )(?<!global\ ) asymmetr(?:y|ies|ic[ ]densit(?:y|ies))\b )
    | (?P<nipple_retraction> nipple[ ]retraction\b
                           | nipples?[ ](?:of[ ]the[ ](?:\w+[ ]){1,2})?(?:is|are)[ ](?:not[ ])?retracted\b
                           | retract(?:ed|ion[ ]of[ ]the)[ ]nipples?\b
                           | nipple (?=[ ](?:or|and)[ ]skin[ ]retraction) )
    | (?P<skin_retraction> skin[ ](?:retraction|dimpling)\b
                         | skin[ ](?:of[ ]the[ ](?:\w+[ ]){1,2})?is[ ](?:not[ ])?retracted\b
                         | retract(?:ed|ion[ ]of[ ]the)[ ]skin\b
                         | skin (?=[ ](?:or|and)[ ]nipple[ ]retraction)
                         | (?<=skin\ thickening\ or\ )retraction\b | (?<=skin\ thickening,\ )retraction\b )
    | (?P<skin_thickening> skin[ ](?:or[ ]trabecular[ ])?thickening\b | thicken(?:ed|ing[ ]of[ ]the)[ ]skin\b
                         | skin[ ](?:of[ ]the[ ](?:\w+[ ]){1,2})?is[ ](?:not[ ])?thickened\b
                         | (?<=skin\ retraction\ or\ )thickening\b )
    | (?P<suspicious_lymph_node> (?:lymph)?adenopathy\b )
    )""",
    re.VERBOSE,
)
_JUDGED_NOUN = re.compile(
    r"(?<!\w)(?:(?P<suspicious_calcification>(?:micro)?calcifications?)|(?P<suspicious_lymph_node>(?:lymph )?nodes?))\b"
)
_SUSPICIOUS = {
    "suspicious_calcification": re.compile(
        r"""\b(?:suspicious|indeterminate|(?:fine[ ]|coarse[ ])?(?:pleomorphic|heterogeneous)|amorphous|fine[ -]linear
        |linear|branching|segmental|group(?:ed|s?[ ]of)|cluster(?:ed|s?[ ]of)?|casting)\b""",
        re.VERBOSE,
    ),
    "suspicious_lymph_node": re.compile(
        r"\b(?:suspicious|enlarged|abnormal|patholog\w+)\b|\b(?:rounded|dense) (?:\w+ )?$"
    ),
}
_BENIGN = {
    "suspicious_calcification": re.compile(
        r"""\b(?:(?<!probably[ ])benign|vascular|arterial|popcorn|coarse(?![ ]heterogeneous)|dystrophic|rim|eggshell
        |dermal|secretory|rod-?like|milk[ ]of[ ]calcium|layering|sutur\w+|lucent|in[ ]the[ ]skin)\b | \bskin[ ]$""",
        re.VERBOSE,
    ),
    "suspicious_lymph_node": re.compile(r"\b(?:benign|normal|unremarkable|fatty|reactive)\b"),
}
_NOUN = r"(?:mass(?:es)?|nodules?|asymmetr\w+|distortions?|thickening|retraction|nodes?|(?:micro)?calcifications?)"
# Adjectives stand before the noun, back to the last of these words.
_PHRASE_START = re.compile(
    rf"[;:.(]|\b(?:with|without|in|is|are|was|were|there|shows?|but|at|on|for|breasts?|quadrants?|{_NOUN})\b"
)
_PHRASE_END = re.compile(rf"[;.]|\b(?:but|however|{_NOUN})\b")
# The words right before the next noun are that noun's.
_OWN_PHRASE = re.compile(r".*(?=,|\b(?:and|or|nor|with|without|near|to|of|in|no)\b)")
_NOT = re.compile(r"\b(?:no|not|none|without)\b")
_BEFORE, _AFTER = 80, 160  # characters


@dataclass(frozen=True)
class Mention:
    """A place where a sentence names a finding.

    Attributes:
        attribute: the finding in snake case.
        start: index of its first character.
        is_denied: its own words deny it ("the nipple is not retracted").
        only_if_denied: the words do not say whether it is the finding, so that only their denial tells something:
            "calcifications" may be benign, "no calcifications" excludes suspicious ones.
    """

    attribute: str
    start: int
    is_denied: bool = False
    only_if_denied: bool = False


def finding_mentions(sentence: str) -> list[Mention]:
    """Return the findings that a lower-case sentence mentions, affirmed or not, in order of their place.

    >>> [mention.attribute for mention in finding_mentions("no mass or amorphous calcifications")]
    ['mass', 'suspicious_calcification']
    """
    plain = (
        Mention(str(found.lastgroup), found.start(), is_denied=" not " in found.group())
        for found in _PLAIN_FINDINGS.finditer(sentence)
    )
    return sorted([*plain, *_judged_mentions(sentence)], key=lambda mention: mention.start)


def _judged_mentions(sentence: str) -> Iterator[Mention]:
    for noun in _JUDGED_NOUN.finditer(sentence):
        attribute = str(noun.lastgroup)
        before, after = _phrase_around(sentence, noun.start(), noun.end())
        if _BENIGN[attribute].search(before) or _BENIGN[attribute].search(after):
            continue
        judgement = _SUSPICIOUS[attribute].search(after)
        denied = bool(judgement and _NOT.search(after, 0, judgement.start()))
        bare = not judgement and not _SUSPICIOUS[attribute].search(before)
        yield Mention(attribute, noun.start(), is_denied=denied, only_if_denied=bare)


def _phrase_around(sentence: str, start: int, end: int) -> tuple[str, str]:
    before = sentence[max(0, start - _BEFORE) : start]
    starts = [stop.end() for stop in _PHRASE_START.finditer(before)]
    after = sentence[end : end + _AFTER]
    if stop := _PHRASE_END.search(after):
        after = after[: stop.start()]
        if stop.group() not in ";." and (own := _OWN_PHRASE.match(after)):
            after = own.group()
    return before[starts[-1] if starts else 0 :], after
