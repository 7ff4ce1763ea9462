"""Whether a sentence affirms, denies or leaves open what it mentions, by cue words (the idea of NegEx, 2001)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mammoclip.text.reports.mentions import Mention

_SLIGHT = (
    "(?:(?:significant|appreciable|suspicious|substantial|interval|notable|definite|measurable|concerning|mammographic"
    "|relevant|evidence of)[ ])*+"
)
_SEEN = (
    "(?:seen|identified|detected|present|noted|visuali[sz]ed|demonstrated|evident|appreciated|found|visible|apparent"
    "|observed|shown|recogni[sz]ed)"
)
_PLACE = r"(?:suspicious|benign|left|right|breast|known|small|palpable|axillary|\d+|mm|cm)"
_FINDING = "(?:mass|nodul|asymm|focal|global|arch|distort|calc|micro|lymph|node|skin|nipple)"
# The first alternative that fits at a place wins. Those that look like a denial and are none come first.
_CUE = re.compile(
    rf"""
      (?P<harmless> \b(?:no|without)[ ]{_SLIGHT}(?:changes?|increase|decrease|growth|enlargement|progression
                      |differences?)\b
                  | \bnot[ ]{_SLIGHT}(?:changed|increased|decreased|grown|enlarged|progressed|different)\b
                  | \b(?:which|that)[ ](?:is|are|was|were)[ ]{_SEEN}\b )
    | (?P<open_span> \b(?:history|hx|sensitivity)\b[^,;.]{{0,80}}
                   | \b(?:possibl[ey]|questionable|suspected|equivocal|prior|previous|former|resolved|excised|resected
                       |removed)[ ](?:{_PLACE}[ ]){{0,4}}{_FINDING}\w* )
    | (?P<open_before_it> \b(?:(?:is|are|was|were|has|have|can|cannot|not)[ ])?(?:be[ ]|been[ ]|not[ ]|now[ ]){{0,3}}+
                          (?:(?:entirely|completely|fully|definitely)[ ])?
                          (?:excluded|ruled[ ]out|resolve[sd]|excised|resected|removed|disappeared|effaces?|dissipates?
                          |suspected|questioned)\b
                        | \bno[ ]longer\b | \b(?:do|does|did)[ ]not[ ]persist\b
                        | \b(?:is|are)[ ](?:possible|not[ ](?:well|clearly|fully|definitely|completely)[ ]\w+) )
    | (?P<denial_before_it> \b(?:not|cannot|can[ ]not)[ ](?:be[ ])?{_SEEN}\b
                          | \b(?:is|are|was|were)[ ]absent\b | \bnone[ ]{_SEEN}\b
                          | (?:[:=]|[ ]-)[ ]?(?:none|absent|nil|negative(?![ ]for)|no(?=[ ]?(?:$|[.,;])))(?!\w) )
    | (?P<open> \b(?:may(?![ ]\d)|might|could|would|should[ ]not|if|whether|mask\w*|hid(?:e|es|ing)|obscures?|obscuring
                   |simulat\w+|mimic\w*|possibl[ey]|questionable|clinically|versus|vs|r/o|rule[ ]out|ruling[ ]out
                   |exclud(?:e|ing)|(?:detect|screen)\w*[ ](?:of|for)|(?:evaluat|assess|look|search)\w*[ ]for
                   |(?:concern(?:ing)?[ ]for|suggest(?:s|ive|ing)?(?:[ ]of)?)(?![ ](?:of[ ])?(?:malign|cancer|carcin))
                   |no[ ]{_SLIGHT}(?:new|other|additional|further))(?!\w) )
    | (?P<denial> \b(?:negative[ ]for:?|(?:no|not|without|neither|nor|never|absence[ ]of|lack[ ]of|free[ ](?:of|from)
                      |devoid[ ]of)(?!\w)) )
    | (?P<clause_end> \b(?:but|however|although|though|except\w*|apart[ ]from|aside[ ]from|other[ ]than|besides|yet
                         |while|whereas|there[ ](?:is|are)|and[ ](?:an?|the|there|one|two|several|multiple)
                         |(?:is|are|was|were)[ ]{_SEEN})(?!\w)
                    | \b{_SEEN}(?=,) | [;:] | [ ]-[ ] )
    """,
    re.VERBOSE,
)


def assertions(sentence: str, mentions: Sequence[Mention]) -> list[bool | None]:
    """Return for each mention whether a lower-case sentence affirms it, denies it, or leaves it open (``None``).

    A cue before a mention reaches to the end of the clause: the next "but", "except", "there is", "is seen", ";" and
    the like. A cue behind it ("... is not seen") reaches back to the beginning of the clause. Doubt is stronger than
    denial. A cue that says neither ("no change in the mass") is passed over. Left open is also what "no new mass" says
    of masses, which may be old, and what has resolved or is no longer seen.

    Args:
        sentence: one sentence in lower case.
        mentions: what `mammoclip.text.reports.mentions.finding_mentions` finds in it, in order of their place.

    >>> from mammoclip.text.reports.mentions import finding_mentions
    >>> sentence = "no mass, but skin thickening; distortion cannot be excluded"
    >>> assertions(sentence, finding_mentions(sentence))
    [False, True, None]
    """
    verdicts: list[bool | None] = []
    clause_start = 0  # in verdicts
    denied = is_open = False
    open_until = 0
    events = sorted(
        [(cue.start(), 0, cue) for cue in _CUE.finditer(sentence)] + [(m.start, 1, m) for m in mentions],
        key=lambda event: event[:2],
    )
    for place, _, event in events:
        if isinstance(event, Mention):
            doubtful = is_open or place < open_until
            verdicts.append(None if doubtful else not (denied or event.is_denied))
            continue
        kind = event.lastgroup
        if kind == "open_span":
            open_until = event.end()
        elif kind == "open":
            is_open = True
        elif kind == "denial":
            denied = True
        elif kind in ("open_before_it", "denial_before_it"):
            doubts = kind == "open_before_it"
            verdicts[clause_start:] = [None if doubts or said is None else False for said in verdicts[clause_start:]]
            clause_start = len(verdicts)
            denied = is_open = False
        elif kind == "clause_end":
            clause_start = len(verdicts)
            denied = is_open = False
    return verdicts
