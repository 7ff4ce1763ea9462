"""Paraphrases of mammography sentences by rules: other words, the same facts.

The offline counterpart of back-translation (`mammoclip.models.back_translation`). A rule touches only what it
understands whole: side, place, finding, negation, numbers, BI-RADS category and breast density stay, and a sentence
that no rule understands has no paraphrase. Two kinds of rules:

- statements: a sentence that states or denies findings ("there is no mass in the left breast") is taken apart and said
  in another frame ("the left breast shows no mass");
- phrases: sets of wordings that mean the same wherever they stand (", measuring 12 mm", ", 12 mm in size").

The wordings are those of ACR BI-RADS Atlas, 5th edition, and of common reports.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

PARAPHRASE_RULES_VERSION = 1
"""Grows when the paraphrases of any sentence change: part of the key under which they are kept."""

_DRAWS = 12  # for each paraphrase asked for; some draws repeat others or the sentence itself

_COUNTED = r"mass|lesion|nodule|asymmetry|lymph node|abnormality|finding|cyst"
_UNCOUNTED = r"(?:micro)?calcification|distortion|retraction|thickening|(?:lymph)?adenopathy"
_PLURAL = (
    r"masses|lesions|nodules|asymmetries|lymph nodes|abnormalities|findings|cysts|(?:micro)?calcifications|distortions"
    r"|areas of fibroglandular density|fibroglandular densities"
)
_SEEN = ("seen", "identified", "noted", "present", "visualised", "observed")
_ALSO_SEEN = r"visualized|visible|detected|found|demonstrated"  # understood, not written

# Words that may not stand between article and noun: with one of them the phrase is more than adjectives and a noun.
_NO_ADJECTIVE = (
    rf"an?|the|this|these|that|which|such|any|one|another|no|not|nor|neither|or|and|but|is|are|was|were|be|there|in|of"
    rf"|at|on|to|as|by|for|from|with|without|evidence|shows?|{'|'.join(_SEEN)}|{_ALSO_SEEN}"
)
_HEAD = rf"(?:{_COUNTED}|{_UNCOUNTED}|{_PLURAL})(?![\w-])"
_NOUN = rf"(?:(?:round|oval|lobulated|irregular) ?, |(?!(?:{_NO_ADJECTIVE})\b)[a-z-]+ )*{_HEAD}"
_NOUNS = rf"{_NOUN}(?:(?: ?, {_NOUN})* or {_NOUN})?"
_SIZE = r"\d*\.?\d+(?: x \d*\.?\d+)* (?:mm|cm)"
_GROUP = rf"(?:(?:[a-z]+ )?(?:group|cluster) of )?{_NOUN}(?: with (?:an? )?[a-z]+ margins?| of {_SIZE})*"
_IS_SEEN = rf"(?:is|are|can be) (?:{'|'.join(_SEEN)}|{_ALSO_SEEN})"
_IS_NOT_SEEN = _IS_SEEN.replace(") (", ") not (", 1)
_BREAST = r"the (?:left |right )?breast|both breasts"
# Place, size and density code: a bag of words, because it is moved as one piece and never changed.
_TAIL = (
    r"(?P<tail>(?! of )(?: ?,| [()]| (?:in|at|of|the|within|upper|lower|outer|inner|medial|lateral|central|retroareolar"
    r"|subareolar|left|right|both|breasts?|quadrant|axilla|depth|third|anterior|middle|posterior|measuring|about"
    r"|approximately|across|size|diameter|mm|cm|x|density|category|acr|[a-d]|\d*\.?\d+)(?=[ ,]|$))*)"
)
_LEAD = r"(?P<lead>(?:(?:left|right|both) breasts? ?: |(?:left|right|bilateral) ?: )?)"
_SHOWN = rf"(?P<breast>{_BREAST}) shows?"

_DENIALS = tuple(
    re.compile(_LEAD + body + _TAIL)
    for body in (
        rf"(?:there (?:is|are) )?no (?:evidence of (?:an? )?)?(?P<noun>{_NOUNS})(?: {_IS_SEEN})?",
        rf"(?:an? )?(?P<noun>{_NOUNS}) {_IS_NOT_SEEN}",
        rf"(?:neither|no) (?:an? )?(?P<noun>{_NOUN}) (?:nor|and no) (?:an? )?(?P<other>{_NOUN}) {_IS_SEEN}",
        rf"{_SHOWN} no (?:evidence of (?:an? )?)?(?P<noun>{_NOUNS})(?= ?[,(]|$)",
    )
)
_ASSERTIONS = tuple(
    re.compile(_LEAD + body + _TAIL)
    for body in (
        rf"(?:there (?:is|are) )?(?P<article>an? )?(?P<noun>{_GROUP})(?: {_IS_SEEN})?",
        rf"{_SHOWN} (?P<article>an? )?(?P<noun>{_GROUP})(?= ?[,(]|$)",
    )
)
_IS_COUNTED = re.compile(rf"(?:[a-z]+ )?(?:group|cluster) of .*|(?:.* )?(?:{_COUNTED})(?: (?:with|of) .*)?")
_IS_PLURAL = re.compile(rf"(?:.* )?(?:{_PLURAL})(?: (?:with|of) .*)?")
_SOUNDS_LIKE_VOWEL = re.compile(r"[aeio]|u(?!ni|su)")
_IN_BREAST = re.compile(rf" in (?P<breast>{_BREAST})(?P<rest>(?: ?[,(].*)?)")

_SLOTS = {
    "start": r"(?:^|(?<=[,(:] ))",
    "end": r"(?= ?[,;(]|$)",
    "code": r"(?= \(| ?, density|$)",
    "side": r"left|right",
    "breast": r"(?:left |right )?breast",
    "quarter": r"(?:upper|lower) (?:outer|inner)",
    "region": r"(?:upper|lower) (?:outer|inner) (?:quadrant|breast)(?! of)",
    "depth": r"anterior|middle|posterior",
    "size": _SIZE,
    "lump": r"mass|lesion|nodule|asymmetry|cyst",
    "finding": rf"{_HEAD}|,",
    "be": r"(?:is|are)(?: not)?",
    "nothing_added": r"(?! (?:to|by|as)\b)",
    "calcifications": r"(?:[a-z-]+ ){0,5}(?:micro)?calcifications?",
    "place": r"in|at",
    "margin": r"circumscribed|microlobulated|spiculated",
    "density": r"almost entirely fatty|heterogeneously dense|extremely dense",
    "tissue": r"(?:breast )?(?:tissue|parenchyma)",
    "evidence": r"(?:mammographic )?evidence",
    "category": r"[0-6](?! ?[\w.])",
    "assessment": r"negative|normal|benign|benign findings|probably benign|suspicious|highly suggestive of malignancy",
}
_SAME_MEANING: tuple[tuple[str, ...], ...] = (
    ("{quarter} quadrant of the {side} breast", "{side} {quarter} quadrant", "{quarter} {side} breast"),
    ("at {depth} depth in the {region}", "in the {region} at {depth} depth", "in the {depth} third of the {region}"),
    (", {depth} depth", ", {depth} third"),
    (", measuring {size}{end}", ", {size} in size{end}"),
    ("about {size} across", "approximately {size} across", "about {size} in diameter"),
    ("{lump} of {size}", "{lump} measuring {size}"),
    tuple(f"{{finding}} {{be}} {seen}{{nothing_added}}" for seen in _SEEN),
    ("lies {place} the", "is located {place} the"),
    ("with {margin} margins", "with a {margin} margin"),
    ("group of {calcifications}", "cluster of {calcifications}"),
    ("scattered areas of fibroglandular density", "scattered fibroglandular densities"),
    (
        "{start}the breasts are {density}{code}",
        "{start}both breasts are {density}{code}",
        "{start}{density} breasts{code}",
    ),
    (
        "the breast tissue is {density}",
        "the breast parenchyma is {density}",
        "the parenchyma is {density}",
        "breast composition is {density}",
    ),
    ("{start}{density} parenchyma on both sides", "{start}the parenchyma is {density} on both sides"),
    ("breasts are almost entirely fatty", "breasts consist almost entirely of fat"),
    ("{tissue} is almost entirely fatty", "{tissue} consists almost entirely of fat"),
    ("lowers the sensitivity", "reduces the sensitivity", "decreases the sensitivity"),
    ("may obscure small masses", "could obscure small masses", "can obscure small masses"),
    ("{start}no {evidence} of", "{start}there is no {evidence} of"),
    ("the {breast} is unremarkable", "the {breast} appears unremarkable"),
    ("{start}normal mammogram of the {breast}{end}", "{start}the mammogram of the {breast} is normal{end}"),
    ("the nipple of the {side} breast", "the {side} nipple"),
    ("is not retracted", "shows no retraction"),
    ("is of normal thickness", "has normal thickness", "is normal in thickness"),
    ("birads {category}", "birads category {category}", "birads assessment category {category}", "birads : {category}"),
    ("{category} , {assessment}{end}", "{category} ( {assessment} ){end}"),
    ("{side} breast : birads", "{side} : birads"),
    ("biopsy recommended", "biopsy is recommended", "biopsy is advised"),
    ("{start}tissue diagnosis should be considered", "{start}consider tissue diagnosis"),
    ("follow - up suggested", "follow - up is suggested"),
)


def paraphrases(sentence: str, count: int, seed: int) -> list[str]:
    """Return up to ``count`` paraphrases of one cleaned sentence, distinct and none equal to it; maybe none.

    They depend on the sentence and the seed alone. Fewer paraphrases are the first of more.

    Args:
        sentence: as `mammoclip.text.clean_sentences` returns it in mode ``strict``: lower-case tokens and blanks.
        count: 0 or more.
        seed: 0 or more.

    >>> paraphrases("there is no mass in the left breast", 2, seed=0)
    ['no mass is seen in the left breast', 'no evidence of a mass in the left breast']
    >>> paraphrases("comparison was made with prior films", 2, seed=0)
    []
    """
    rng = np.random.default_rng([seed, *hashlib.sha256(sentence.encode()).digest()])
    sentence = sentence.removesuffix(".")  # cleaning leaves one after a bracket
    found: list[str] = []
    for _ in range(_DRAWS * count):
        paraphrase = _vary_phrases(_vary_statement(sentence, rng), rng)
        if paraphrase not in (sentence, *found):
            found.append(paraphrase)
        if len(found) == count:
            break
    return found


@dataclass(frozen=True)
class _Statement:
    """A sentence taken apart: ``lead`` ("left breast : "), what is stated or denied, and where and how large."""

    lead: str
    noun: str
    article: str
    tail: str

    @property
    def be(self) -> str:
        return "are" if _IS_PLURAL.fullmatch(self.noun) and not _IS_COUNTED.fullmatch(self.noun) else "is"

    @property
    def noun_with_article(self) -> str:
        if self.article or not _IS_COUNTED.fullmatch(self.noun):
            return self.article + self.noun
        return f"{'an' if _SOUNDS_LIKE_VOWEL.match(self.noun) else 'a'} {self.noun}"


def _vary_statement(sentence: str, rng: np.random.Generator) -> str:
    """Say a statement in a frame drawn at random; return any other sentence as it is."""
    seen = _pick(_SEEN, rng)
    for patterns, frames in ((_DENIALS, _deny), (_ASSERTIONS, _assert)):
        for pattern in patterns:
            if match := pattern.fullmatch(sentence):
                statement = _take_apart(match)
                return statement.lead + _pick(frames(statement, seen), rng)
    return sentence


def _take_apart(match: re.Match[str]) -> _Statement:
    parts = match.groupdict("")
    noun, tail = parts["noun"], parts["tail"]
    if "other" in parts:
        noun = f"{noun} or {parts['other']}"
    if "breast" in parts:
        tail = f" in {parts['breast']}{tail}"
    return _Statement(parts["lead"], noun, parts.get("article", ""), tail)


def _deny(statement: _Statement, seen: str) -> list[str]:
    noun, be, tail = statement.noun, statement.be, statement.tail
    frames = [
        f"there {be} no {noun}{tail}",
        f"no {noun} {be} {seen}{tail}",
        f"no evidence of {statement.noun_with_article}{tail}",
        f"there is no evidence of {statement.noun_with_article}{tail}",
    ]
    if place := _IN_BREAST.fullmatch(tail):
        frames.append(f"{_shows(place['breast'])} no {noun}{place['rest']}")
    return frames


def _assert(statement: _Statement, seen: str) -> list[str]:
    noun, be, tail = statement.noun_with_article, statement.be, statement.tail
    frames = [f"there {be} {noun}{tail}", f"{noun} {be} {seen}{tail}"]
    if tail:
        frames.append(f"{statement.noun}{tail}")
    if place := _IN_BREAST.fullmatch(tail):
        frames.append(f"{_shows(place['breast'])} {noun}{place['rest']}")
    return frames


def _shows(breast: str) -> str:
    return f"{breast} {'show' if breast.endswith('s') else 'shows'}"


def _as_pattern(wording: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", wording)
    text = "".join(rf"(?P<{part}>{_SLOTS[part]})" if slot % 2 else re.escape(part) for slot, part in enumerate(parts))
    return re.compile(rf"(?<!\w){text}(?!\w)")


_PHRASES = tuple(tuple((_as_pattern(wording), wording) for wording in wordings) for wordings in _SAME_MEANING)


def _vary_phrases(sentence: str, rng: np.random.Generator) -> str:
    """Replace the first phrase of each set that the sentence holds by a wording of the set drawn at random."""
    for phrases in _PHRASES:
        wording = _pick([wording for _, wording in phrases], rng)
        match = next(filter(None, (pattern.search(sentence) for pattern, _ in phrases)), None)
        if match:
            sentence = sentence[: match.start()] + wording.format(**match.groupdict()) + sentence[match.end() :]
    return sentence


def _pick(choices: list[str] | tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
