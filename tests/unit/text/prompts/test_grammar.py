from __future__ import annotations

import pytest

from mammoclip.text.prompts.grammar import Phrase, Place, Production, Sentences

FRAMES = ("there {be} {phrase} in the {where}{depth}", "{noun} in the {where}{depth}")
CLIPS = (Phrase("clip"), Phrase("old clips", "old", "plural"))
PLACES = (Place(), Place("upper {side}breast", "upper", "middle"))


def test_a_small_grammar_spells_out_every_combination_plainest_first() -> None:
    assert list(Sentences([Production(FRAMES, CLIPS, PLACES)], "R")) == [
        "there is a clip in the right breast",
        "clip in the right breast",
        "there is a clip in the upper right breast at middle depth",
        "clip in the upper right breast at middle depth",
        "there are old clips in the right breast",
        "old clips in the right breast",
        "there are old clips in the upper right breast at middle depth",
        "old clips in the upper right breast at middle depth",
    ]


def test_productions_follow_each_other_and_those_for_other_sides_are_left_out() -> None:
    bare = Production(("{noun}",), CLIPS, sides=(None,))
    placed = Production(("{noun} in the {where}",), CLIPS)
    assert list(Sentences([bare, placed], None)) == [
        "clip",
        "old clips",
        "clip in the breast",
        "old clips in the breast",
    ]
    assert list(Sentences([bare, placed], "L")) == ["clip in the left breast", "old clips in the left breast"]
    assert list(Sentences([bare], "L")) == []


def test_sentences_are_a_sequence() -> None:
    sentences = Sentences([Production(FRAMES, CLIPS, PLACES), Production(("no {noun}",), CLIPS)], "L")
    whole = list(sentences)
    assert len(sentences) == len(whole) == 10
    assert sentences[-1] == whole[-1] == "no old clips"
    assert sentences[1::3] == whole[1::3]
    assert "no clip" in sentences and "no old clip" not in sentences
    with pytest.raises(IndexError):
        sentences[10]


@pytest.mark.parametrize(
    ("words", "article"),
    [
        ("mass", "a"),
        ("high density mass", "a"),
        ("unilateral finding", "a"),
        ("uniform rim", "a"),
        ("usual scar", "a"),
        ("oval mass", "an"),
        ("irregular mass", "an"),
        ("upper mass", "an"),
        ("unusual mass", "an"),
    ],
)
def test_the_article_goes_by_sound(words: str, article: str) -> None:
    assert Phrase(words).with_article == f"{article} {words}"


def test_only_what_is_counted_one_by_one_has_an_article_and_only_plurals_are_many() -> None:
    assert Phrase("calcifications", number="plural").with_article == "calcifications"
    assert Phrase("skin thickening", number="uncounted").with_article == "skin thickening"
    assert [Phrase("x", number=number).be for number in ("singular", "plural", "uncounted")] == ["is", "are", "is"]
