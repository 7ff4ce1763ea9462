"""Every sentence of the grammar is read back; what it states is checked against its words, not against the grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

from mammoclip.errors import DatasetError
from mammoclip.text import FINDINGS, PromptGrammar, Statement, clean_sentences
from mammoclip.text.reports.sections import Laterality

GRAMMAR = PromptGrammar()
SIDES: tuple[Laterality | None, ...] = ("L", "R", None)
LABELS = [
    (subject, value, laterality)
    for subject in GRAMMAR.subjects
    for value in GRAMMAR.values(subject)
    for laterality in SIDES
]
POSITIONS = re.compile(
    r"(?:upper|lower) (?:outer|inner) quadrant|\b(?:upper|lower|outer|inner|central)(?= (?:left |right )?breast)"
    r"|retroareolar|axillary tail|axilla\b"
)
SYNONYMS = {
    "group": "grouped",
    "retropectoral": "subpectoral",
    "prepectoral": "subglandular",
    "postsurgical": "surgical",
}


def all_sentences() -> Iterator[tuple[Statement, str]]:
    for label in LABELS:
        for statement in GRAMMAR.statements(*label):
            for sentence in GRAMMAR.say(statement):
                yield statement, sentence


def drawn_sentences(num: int) -> list[str]:
    """Sentences of which every subject, value and side has the same share, however few sentences it has."""
    rng = np.random.default_rng(5)
    return [GRAMMAR.draw(rng, *LABELS[label]) for label in rng.integers(len(LABELS), size=num)]


def only(words: list[str]) -> str | None:
    assert len(words) <= 1, words
    return words[0] if words else None


def test_every_sentence_states_one_thing_and_is_read_back_to_it() -> None:
    stated: dict[str, Statement] = {}
    for statement, sentence in all_sentences():
        assert stated.setdefault(sentence, statement) == statement, sentence
        assert GRAMMAR.parse(sentence) == statement, sentence
    assert len(stated) >= 50_000
    assert set(stated) == {sentence for label in LABELS for sentence in GRAMMAR.sentences(*label)}


def test_sentences_are_read_in_any_case_with_a_full_stop_and_from_cleaned_text() -> None:
    for sentence in drawn_sentences(50_000):
        statement = GRAMMAR.parse(sentence)
        assert GRAMMAR.parse(f"  {sentence.capitalize().replace(' ', '  ')}. ") == statement
        for cleaned in clean_sentences(sentence, "strict"):
            assert GRAMMAR.parse(cleaned) == statement


def test_what_is_read_stands_in_the_words_of_the_sentence() -> None:
    for sentence in drawn_sentences(50_000):
        statement, words = GRAMMAR.parse(sentence), sentence.split()
        assert statement.laterality == ("L" if "left" in words else "R" if "right" in words else None)
        assert statement.depth == only([word for word in words if word in ("anterior", "middle", "posterior")])
        assert statement.position == only(POSITIONS.findall(sentence))
        named = {SYNONYMS.get(word, word) for word in re.findall(r"[a-z]+", sentence)}
        assert set(re.findall(r"[a-z]+", statement.subtype or "")) <= {*named, *words}, sentence
        if statement.subject in FINDINGS:
            denied = bool({"no", "not"} & set(words)) or sentence.endswith("normal thickness")
            assert statement.value == (not denied), sentence


def test_a_subtype_is_read_where_the_sentence_has_more_than_the_subject() -> None:
    known = {
        *re.findall(r"\w+", "there is are no a an the of in for at evidence seen present noted identified shows"),
        *re.findall(r"\w+", "left right breast mass masses anterior middle posterior depth upper lower outer inner"),
        *re.findall(r"\w+", "quadrant central retroareolar region axillary tail"),
    }
    for value in (0, 1):
        for laterality in SIDES:
            for sentence in GRAMMAR.sentences("mass", value, laterality):
                rest = [word for word in sentence.split() if word not in known]
                assert (GRAMMAR.parse(sentence).subtype or "").split() == rest


@pytest.mark.parametrize(
    ("sentence", "statement"),
    [
        ("mass", Statement("mass", 1)),
        ("no mass", Statement("mass", 0)),
        ("No masses are seen in the left breast.", Statement("mass", 0, laterality="L")),
        (
            "there is an irregular spiculated high density mass in the upper outer quadrant of the right breast at"
            " posterior depth",
            Statement("mass", 1, "irregular spiculated high density", "upper outer quadrant", "posterior", "R"),
        ),
        ("a fat - containing mass is seen", Statement("mass", 1, "fat-containing")),
        (
            "a group of amorphous calcifications is noted in the retroareolar region of the left breast",
            Statement("suspicious calcification", 1, "grouped amorphous", "retroareolar", None, "L"),
        ),
        ("there are suspicious microcalcifications in the breast", Statement("suspicious calcification", 1)),
        ("no suspicious calcification", Statement("suspicious calcification", 0)),
        (
            "single-view asymmetry in the outer left breast at middle depth",
            Statement("asymmetry", 1, "single-view", "outer", "middle", "L"),
        ),
        ("developing focal asymmetry", Statement("focal asymmetry", 1, "developing")),
        (
            "there are enlarged lymph nodes in the left axilla",
            Statement("suspicious lymph node", 1, "enlarged", "axilla", None, "L"),
        ),
        ("the right axilla shows no lymphadenopathy", Statement("suspicious lymph node", 0, None, "axilla", None, "R")),
        ("benign intramammary lymph node", Statement("lymph node", 1, "benign intramammary")),
        ("the nipple of the left breast is retracted", Statement("nipple retraction", 1, laterality="L")),
        ("the skin of the right breast is of normal thickness", Statement("skin thickening", 0, laterality="R")),
        ("the left breast is unremarkable", Statement("no finding", 1, laterality="L")),
        ("scattered areas of fibroglandular density are seen", Statement("density", 1)),
        ("the left breast is heterogeneously dense", Statement("density", 2, laterality="L")),
        ("breast density is category d", Statement("density", 3)),
        ("birads 4, suspicious", Statement("birads", 4)),
        ("the assessment of the left breast is probably benign", Statement("birads", 3, laterality="L")),
        ("no mammographic evidence of malignancy in the left breast", Statement("malignancy", 0, laterality="L")),
        ("there is biopsy-proven cancer in the breast", Statement("malignancy", 1, "biopsy-proven")),
        ("a retropectoral silicone implant is seen", Statement("implant", 1, "subpectoral silicone")),
        ("lumpectomy scar in the lower left breast", Statement("scar", 1, "lumpectomy", "lower", None, "L")),
    ],
)
def test_examples(sentence: str, statement: Statement) -> None:
    assert GRAMMAR.parse(sentence) == statement


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "there is a purple mass",
        "there is an mass",
        "there is mass",
        "there are a mass in the breast",
        "a mass are seen",
        "there is masses in the breast",
        "no mass in the left breast. no mass in the right breast",
        "there is a mass in the left axilla",
        "there is a mass in the left",
        "there is a mass in the left breast at lateral depth",
        "there is a circumscribed spiculated mass",
        "calcifications in the left breast",
        "there is nipple retraction in the upper outer quadrant of the left breast",
        "a global asymmetry is seen in the lower left breast at middle depth",
        "an asymmetry is seen in the upper outer quadrant of the left breast",
        "there are diffuse amorphous calcifications in the upper right breast",
        "a mass is seen in the retroareolar region of the left breast at posterior depth",
        "birads 7",
        "breast density is category e",
    ],
)
def test_what_the_grammar_does_not_say_is_refused(sentence: str) -> None:
    with pytest.raises(DatasetError, match="none of the prompt grammar") as error:
        GRAMMAR.parse(sentence)
    assert repr(sentence) in str(error.value)
