"""The rule-based paraphraser against an oracle of its own: what is left of a sentence without its function words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammoclip.datasets.phantom.exam import draw_exam
from mammoclip.text import (
    DENSITY_PROMPTS,
    FINDINGS,
    PromptGrammar,
    clean_sentences,
    normalise_birads,
    paraphrases,
    split_report,
)

NEGATIONS = {"no", "not", "neither", "nor"}
# Words that carry no fact by themselves. "breast" is among them because "left upper outer quadrant" does without it;
# the words that tell sides, quadrants and depths apart are not.
FREE = frozenset(
    re.findall(
        r"\S+",
        """a an and the there is are of in at on with to or both its can be could may should which has ( ) , : ; .
        seen identified noted present visualised observed detected evidence show shows lies located appears measuring
        size across about approximately diameter depth third breast breasts tissue parenchyma composition quadrant areas
        category assessment recommended advised considered consider suggested consist consists""",
    )
)
STEMS = {
    "masses": "mass",
    "calcifications": "calcification",
    "margins": "margin",
    "densities": "density",
    "fat": "fatty",
    "cluster": "group",
    "reduces": "lowers",
    "decreases": "lowers",
    "retracted": "retraction",
}


def facts(sentence: str) -> list[str]:
    """What a sentence says without how it says it: its words that are not free, and whether it denies."""
    words = re.findall(r"\d*\.?\d+|[a-z]+|[^\w\s]", sentence)
    denial = ["NO"] if NEGATIONS & set(words) else []
    return sorted([STEMS.get(word, word) for word in words if word not in FREE | NEGATIONS] + denial)


def report_sentences() -> list[str]:
    sentences: set[str] = set()
    for patient in range(120):
        report = split_report(draw_exam(7, patient, rows_px=400, columns_px=256).report)
        for section in ("FINDINGS", "IMPRESSION"):
            sentences |= set(clean_sentences(normalise_birads(report[section])))
    return sorted(sentences)


def prompt_sentences() -> list[str]:
    grammar = PromptGrammar()
    sentences = {
        sentence
        for finding in FINDINGS
        for present in (True, False)
        for laterality in ("L", "R", None)
        for sentence in grammar.sentences(finding, present, laterality=laterality)[::29]
    }
    return sorted(sentences | set(DENSITY_PROMPTS.values()))


REPORTS = report_sentences()
PROMPTS = prompt_sentences()


@pytest.mark.parametrize("sentences", [REPORTS, PROMPTS], ids=["reports", "prompts"])
def test_a_paraphrase_says_what_its_sentence_says(sentences: list[str]) -> None:
    for sentence in sentences:
        for paraphrase in paraphrases(sentence, 4, seed=1):
            assert facts(paraphrase) == facts(sentence), (sentence, paraphrase)


@pytest.mark.parametrize("sentences", [REPORTS, PROMPTS], ids=["reports", "prompts"])
def test_paraphrases_are_distinct_and_read_as_english(sentences: list[str]) -> None:
    for sentence in sentences:
        found = paraphrases(sentence, 4, seed=2)
        assert len({sentence, *found}) == len(found) + 1
        for paraphrase in found:
            assert paraphrase == " ".join(paraphrase.split())
            assert not re.search(r"\ba [aeio]|\ban [^aeiou]|\b(\w+) \1\b|\b(?:is|are) (?:is|are)\b", paraphrase)
            if "group of" not in paraphrase and "cluster of" not in paraphrase:
                assert not re.search(r"(?:masses|calcifications|densities) is\b", paraphrase)


@pytest.mark.parametrize("sentences", [REPORTS, PROMPTS], ids=["reports", "prompts"])
def test_nearly_every_sentence_has_a_paraphrase(sentences: list[str]) -> None:
    with_one = sum(bool(paraphrases(sentence, 1, seed=0)) for sentence in sentences)
    assert with_one >= 0.97 * len(sentences)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("there is no mass in the left breast", "the left breast shows no mass"),
        ("the right breast shows no mass", "no mass is seen in the right breast"),
        ("left breast : a mass is not seen", "left breast : no evidence of a mass"),
        ("neither a mass nor suspicious calcification is seen", "there is no mass or suspicious calcification"),
        ("no suspicious calcifications can be detected", "there are no suspicious calcifications"),
        ("there is an oval mass in the left breast", "oval mass in the left breast"),
        ("irregular mass at middle depth", "there is an irregular mass at middle depth"),
        ("unchanged mass in the right breast", "an unchanged mass is seen in the right breast"),
        ("unilateral mass in the right breast", "a unilateral mass is seen in the right breast"),
        ("both breasts show benign calcifications", "there are benign calcifications in both breasts"),
        ("a group of amorphous calcifications is seen", "there is a cluster of amorphous calcifications"),
        (
            "a mass is seen in the upper outer quadrant of the left breast",
            "there is a mass in the left upper outer quadrant",
        ),
        ("oval mass of 1.5 cm in the left breast", "an oval mass of 1.5 cm is seen in the left breast"),
        ("there is a mass of 1.5 cm in the left breast", "there is a mass measuring 1.5 cm in the left breast"),
        ("oval mass in the right breast , measuring 12 x 8 mm", "oval mass in the right breast , 12 x 8 mm in size"),
        ("a mass , oval , lies in the right breast", "a mass , oval , is located in the right breast"),
        ("scattered fibroglandular densities are seen", "there are scattered areas of fibroglandular density"),
        ("the breasts are almost entirely fatty", "the breasts consist almost entirely of fat"),
        ("extremely dense breasts ( acr d ).", "both breasts are extremely dense ( acr d )"),
        ("the nipple of the left breast is not retracted", "the left nipple shows no retraction"),
        ("left breast : birads 2 , benign", "left : birads category 2 ( benign )"),
        ("birads 4 ( tissue diagnosis should be considered )", "birads category 4 ( consider tissue diagnosis )"),
        ("birads 5 , biopsy recommended", "birads assessment category 5 , biopsy is advised"),
    ],
)
def test_each_kind_of_rule(sentence: str, expected: str) -> None:
    assert expected in paraphrases(sentence, 100, seed=0)


@pytest.mark.parametrize(
    "sentence",
    [
        "comparison was made with prior films",
        "no mass in the left breast but a mass in the right breast",
        "no change in the mass of the left breast",
        "the mass in the left breast is stable",
        "this mass in the left breast",
        "no longer seen mass in the left breast",
        "a mass without calcification in the left breast",
        "birads 4 . 5 mm",
        "skin thickening , mass",
        "the left breast shows a mass in the upper outer quadrant",
        "the mass is noted to be new",
        "a tissue diagnosis should be considered",
        "",
    ],
)
def test_what_no_rule_understands_whole_is_left_alone(sentence: str) -> None:
    assert paraphrases(sentence, 5, seed=0) == []


WORDS = re.findall(
    r"\S+",
    """a an the no not or and , ( ) : is are in of there seen shows evidence mass masses calcifications benign
    suspicious left right both breast breasts birads 2 3 mm 1.5 upper outer quadrant middle depth at measuring
    extremely dense""",
)


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_sides_numbers_density_and_negation_survive_any_sequence_of_words(words: list[str]) -> None:
    for paraphrase in paraphrases(" ".join(words), 3, seed=0):
        kept = re.compile(r"\b(?:left|right|birads|dense|mass|calcifications|\d*\.?\d+)\b")
        assert sorted(kept.findall(paraphrase)) == sorted(kept.findall(" ".join(words)))
        assert bool(NEGATIONS & set(paraphrase.split())) == bool(NEGATIONS & set(words))


def test_paraphrases_depend_on_sentence_and_seed_alone_and_fewer_are_the_first_of_more() -> None:
    sentence = "there is an irregular mass in the upper outer quadrant of the left breast"
    five = paraphrases(sentence, 5, seed=3)
    assert len(five) == 5
    assert paraphrases(sentence, 2, seed=3) == five[:2]
    assert paraphrases(sentence, 5, seed=4) != five
    assert paraphrases(sentence, 0, seed=3) == []
