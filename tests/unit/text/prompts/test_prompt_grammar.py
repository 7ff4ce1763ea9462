from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from mammoclip.errors import DatasetError
from mammoclip.text import FINDINGS, NO_FINDING, PromptGrammar, Statement
from mammoclip.text.reports.sections import Laterality

GRAMMAR = PromptGrammar()
LABELS = [(subject, value) for subject in GRAMMAR.subjects for value in GRAMMAR.values(subject)]
PLURALS = {"masses", "asymmetries", "calcifications", "microcalcifications", "nodes", "implants", "areas", "breasts"}
UNCOUNTED = {
    *("calcification", "distortion", "retraction", "thickening", "lymphadenopathy"),
    *("malignancy", "cancer", "carcinoma", "evidence"),
}


def head(noun_phrase: str) -> str:
    """The word that articles and verbs go by: "group" of "group of amorphous calcifications"."""
    return noun_phrase.partition(" of ")[0].rpartition(" ")[2]


def sentences_of_all_sides(subject: str, value: int) -> list[str]:
    sides: tuple[Laterality | None, ...] = ("L", "R", None)
    return [sentence for side in sides for sentence in GRAMMAR.sentences(subject, value, side)]


def test_the_grammar_speaks_of_the_ten_findings_of_vindr_and_of_attributes() -> None:
    assert len(FINDINGS) == 10 and GRAMMAR.findings == FINDINGS
    assert {*FINDINGS, NO_FINDING, "density", "birads", "malignancy", "implant", "scar", "lymph node"} == set(
        GRAMMAR.subjects
    )


def test_values_are_presence_and_absence_or_grades() -> None:
    assert {subject: sorted(GRAMMAR.values(subject)) for subject in GRAMMAR.subjects} == {
        **{subject: [0, 1] for subject in (*FINDINGS, "malignancy", "implant", "scar", "lymph node")},
        NO_FINDING: [1],
        "density": [0, 1, 2, 3],
        "birads": [0, 1, 2, 3, 4, 5, 6],
    }


@pytest.mark.parametrize(("subject", "value"), LABELS)
def test_every_label_can_be_said_in_several_ways_without_and_with_a_side(subject: str, value: int) -> None:
    for laterality in ("L", "R", None):
        sentences = list(GRAMMAR.sentences(subject, value, laterality))
        assert len(sentences) == len(set(sentences)) >= 5


@pytest.mark.parametrize(
    ("subject", "value", "plain", "sided"),
    [
        ("mass", 1, "mass", "there is a mass in the left breast"),
        ("mass", 0, "no mass", "there is no mass in the left breast"),
        ("asymmetry", 1, "asymmetry", "there is an asymmetry in the left breast"),
        (
            "suspicious calcification",
            1,
            "suspicious calcification",
            "there are suspicious calcifications in the left breast",
        ),
        (NO_FINDING, 1, "no finding", "there is no suspicious finding in the left breast"),
        ("density", 0, "the breasts are almost entirely fatty", "the left breast is almost entirely fatty"),
        ("birads", 2, "birads 2", "birads 2 for the left breast"),
        ("malignancy", 0, "no malignancy", "there is no malignancy in the left breast"),
    ],
)
def test_the_plainest_sentence_comes_first(subject: str, value: int, plain: str, sided: str) -> None:
    assert GRAMMAR.sentences(subject, value)[0] == plain
    assert GRAMMAR.sentences(subject, value, "L")[0] == sided


@pytest.mark.parametrize(("subject", "value"), LABELS)
def test_every_sentence_names_the_side_it_is_asked_for_and_no_other(subject: str, value: int) -> None:
    for laterality, own in (("L", {"left"}), ("R", {"right"}), (None, set())):
        for sentence in GRAMMAR.sentences(subject, value, laterality):
            assert {"left", "right"} & set(sentence.split()) == own, sentence


@pytest.mark.parametrize(("subject", "value"), LABELS)
def test_sentences_are_plain_lower_case_ascii_without_a_final_full_stop(subject: str, value: int) -> None:
    for sentence in sentences_of_all_sides(subject, value):
        assert re.fullmatch(r"[a-z0-9]+(?:,? [a-z0-9]+(?:-[a-z]+)?)*|[a-z]+-[a-z]+(?: [a-z]+)*", sentence), sentence
        assert not re.search(r"\b(\w+) \1\b", sentence), sentence


@pytest.mark.parametrize(("subject", "value"), LABELS)
def test_articles_go_by_sound_and_stand_before_what_is_counted(subject: str, value: int) -> None:
    for sentence in sentences_of_all_sides(subject, value):
        for article, word in re.findall(r"\b(an?) ([a-z]+)", sentence):
            assert word[0] != "u" or word == "unilateral", f"say how {word!r} sounds"
            assert article == ("an" if word[0] in "aeio" else "a"), sentence
        for noun in re.findall(r"\ban? (.+?)(?= is | in the |$)", sentence):
            assert head(noun) not in PLURALS | UNCOUNTED, sentence
        for noun in re.findall(r"^there (?:is|are) (?!an? |no )(.+?)(?= in the |$)", sentence):
            assert head(noun) in PLURALS | UNCOUNTED, sentence


@pytest.mark.parametrize(("subject", "value"), LABELS)
def test_verbs_agree_with_their_nouns(subject: str, value: int) -> None:
    for sentence in sentences_of_all_sides(subject, value):
        there = re.search(r"^there (is|are) (.+?)(?= in the |$)", sentence)
        noun_first = re.search(r"^(?!there)(.+?) (is|are) ", sentence)
        if there:
            assert there[1] == ("are" if head(there[2]) in PLURALS else "is"), sentence
        if noun_first:
            assert noun_first[2] == ("are" if head(noun_first[1]) in PLURALS else "is"), sentence


def test_a_lymph_node_or_calcification_is_never_called_suspicious_by_its_name_alone() -> None:
    bare = re.compile(r"^(?:there (?:is|are) )?(?:a )?(?:lymph nodes?|calcifications?)\b")
    for subject in ("suspicious lymph node", "suspicious calcification"):
        assert not any(bare.search(sentence) for sentence in sentences_of_all_sides(subject, 1))


def test_places_fit_the_subject() -> None:
    def places(subject: str, subtype: str | None = None) -> set[str | None]:
        return {s.position for s in GRAMMAR.statements(subject, 1) if subtype is None or s.subtype == subtype}

    assert len(places("mass")) == 12
    assert places("nipple retraction") == {None}
    assert places("global asymmetry") == {None, "upper", "lower", "outer", "inner"}
    assert "axilla" in places("suspicious lymph node") and "axilla" not in places("mass")
    assert places("suspicious calcification", "diffuse amorphous") == {None}
    assert not any(place and "quadrant" in place for place in places("asymmetry"))
    depths = {
        s.depth for subject in ("global asymmetry", "skin thickening", "scar") for s in GRAMMAR.statements(subject)
    }
    assert depths == {None}


@pytest.mark.parametrize("subject", FINDINGS)
def test_presence_and_absence_share_no_sentence(subject: str) -> None:
    assert not set(sentences_of_all_sides(subject, 1)) & set(sentences_of_all_sides(subject, 0))


def test_names_are_read_in_any_case_and_with_underscores() -> None:
    assert list(GRAMMAR.sentences("Skin_Thickening")) == list(GRAMMAR.sentences("skin thickening"))
    assert GRAMMAR.values("NO_FINDING") == (1,)
    assert list(GRAMMAR.sentences("scar", True, "L")) == list(GRAMMAR.sentences("scar", 1, "L"))


def test_statements_are_distinct_and_each_can_be_said() -> None:
    statements = GRAMMAR.statements("skin_thickening", 1, "R")
    assert len(statements) == len(set(statements))
    assert statements[0] == Statement("skin thickening", 1, laterality="R")
    assert all(GRAMMAR.say(statement) for statement in statements)


def test_what_has_no_words_is_not_said() -> None:
    assert GRAMMAR.say(Statement("mass", 1, "purple")) == []
    assert GRAMMAR.say(Statement("nipple retraction", 1, None, "upper")) == []


def test_draws_repeat_with_the_seed() -> None:
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    draws = [GRAMMAR.draw(rng, "mass", 1, "L") for _ in range(200)]
    assert draws == [GRAMMAR.draw(again, "mass", 1, "L") for _ in range(200)]


def test_draws_are_uniform_over_the_sentences() -> None:
    rng = np.random.default_rng(3)
    sentences = GRAMMAR.sentences("nipple retraction", 1, "L")
    counts = Counter(GRAMMAR.draw(rng, "nipple retraction", 1, "L") for _ in range(200 * len(sentences)))
    assert set(counts) == set(sentences)
    # 200 draws each, standard deviation 14.
    assert min(counts.values()) > 130 and max(counts.values()) < 270


def test_unknown_subjects_values_and_sides_are_refused_with_the_choices() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DatasetError, match=r"'masss'.*nipple retraction.*correct"):
        GRAMMAR.sentences("masss")
    with pytest.raises(DatasetError, match="'no finding' has the value 0; expected one of 1"):
        GRAMMAR.draw(rng, NO_FINDING, 0)
    with pytest.raises(DatasetError, match="expected one of 0, 1, 2, 3"):
        GRAMMAR.statements("density", 4)
    with pytest.raises(ValueError, match="laterality"):
        GRAMMAR.draw(rng, "mass", 1, "left")  # type: ignore[arg-type]
