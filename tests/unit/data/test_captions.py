from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.data.captions import Captions, CaptionSampler, swap_sides
from mammoclip.text import PromptGrammar

FINDINGS, IMPRESSION = ("there is a mass", "it is round"), ("birads 4", "biopsy is advised")
PARAPHRASES = {"there is a mass": ["a mass is seen", "a mass lies here"], "birads 4": ["category 4"]}


def draws(captions: Captions, sampler: CaptionSampler, num: int = 400) -> list[tuple[str, str]]:
    return [sampler.draw(captions, np.random.default_rng(seed)) for seed in range(num)]


def sorted_words(text: str) -> str:
    return " ".join(sorted(text.split()))


def test_two_sections_are_drawn_with_replacement_and_their_sentences_shuffled() -> None:
    drawn = draws(Captions((FINDINGS, IMPRESSION), "L"), CaptionSampler())
    whole = {sorted_words(" ".join(section)): name for section, name in ((FINDINGS, "f"), (IMPRESSION, "i"))}
    pairs = Counter("".join(whole[sorted_words(text)] for text in pair) for pair in drawn)
    assert set(pairs) == {"ff", "fi", "if", "ii"} and min(pairs.values()) > 60
    assert {text for pair in drawn for text in pair} == {
        *(" ".join(order) for section in (FINDINGS, IMPRESSION) for order in (section, section[::-1]))
    }


def test_the_released_code_keeps_the_sentences_of_reports_in_order_and_shuffles_those_of_labels() -> None:
    section = ("one mass", "two cysts", "three clips", "four nodes")
    assert set(draws(Captions((section,), "L"), CaptionSampler(mode="compat"))) == {(" ".join(section),) * 2}
    assert len(set(draws(Captions((section,), "L"), CaptionSampler()))) > 100
    labels = Captions((), "L", ((("mass", 1), ("suspicious_calcification", 1)),))
    words = [text.split() for text, _ in draws(labels, CaptionSampler(mode="compat"))]
    assert {text[-1] for text in words} != {words[0][-1]}


def test_each_drawn_section_is_paraphrased_half_of_the_time() -> None:
    drawn = draws(Captions((FINDINGS, IMPRESSION), "L"), CaptionSampler(PARAPHRASES))
    texts = [text for pair in drawn for text in pair if "round" in text]
    said = Counter(next(s for s in ("there is a mass", "a mass is seen", "a mass lies here") if s in t) for t in texts)
    assert abs(said["there is a mass"] / len(texts) - 0.5) < 0.08
    assert min(said["a mass is seen"], said["a mass lies here"]) > 0.15 * len(texts)
    assert all("it is round" in text for text in texts)  # a sentence without a paraphrase stays


def test_a_single_section_is_paired_with_its_paraphrase_in_random_order() -> None:
    drawn = draws(Captions((("birads 4",),), "L"), CaptionSampler(PARAPHRASES))
    pairs = Counter(drawn)
    assert set(pairs) == {("birads 4", "category 4"), ("category 4", "birads 4")} and min(pairs.values()) > 150
    assert draws(Captions((("birads 4",),), "L"), CaptionSampler(), 3) == [("birads 4", "birads 4")] * 3


def test_labels_are_spoken_of_by_new_sentences_at_every_draw() -> None:
    cc, mlo = (("mass", 1), ("asymmetry", 0)), (("skin_thickening", 1),)
    captions = Captions((), "R", (cc, mlo))
    grammar = PromptGrammar()
    stated = {
        key: set(grammar.sentences(name, value, "R")) for key, (name, value) in zip("mas", (*cc, *mlo), strict=True)
    }
    drawn = draws(captions, CaptionSampler(), 200)
    orders = Counter()
    for pair in drawn:
        places = ["s" if text in stated["s"] else "c" for text in pair]
        assert sorted(places) == ["c", "s"]
        both = pair[places.index("c")]
        masses, asymmetries = ([text for text in stated[key] if text in both] for key in "ma")
        assert any(both in (f"{m} {a}", f"{a} {m}") for m in masses for a in asymmetries)
        orders["".join(places)] += 1
    assert min(orders.values()) > 60
    assert len(set(drawn)) > 150


def test_a_breast_with_labels_of_one_view_has_two_texts_of_it() -> None:
    captions = Captions((), "L", ((("mass", 1),),))
    sentences = set(PromptGrammar().sentences("mass", 1, "L"))
    drawn = draws(captions, CaptionSampler(), 50)
    assert all(first in sentences and second in sentences for first, second in drawn)
    assert any(first != second for first, second in drawn)


def test_graded_labels_and_no_finding_are_spoken_of() -> None:
    view = (("no_finding", 1), ("density", 3), ("birads", 1))
    first, second = CaptionSampler().first(Captions((), "L", (view,)))
    grammar = PromptGrammar()
    assert first == second == " ".join(grammar.sentences(name, value, "L")[0] for name, value in view)


def test_validation_reads_the_first_and_the_last_section() -> None:
    assert CaptionSampler(PARAPHRASES).first(Captions((FINDINGS, IMPRESSION), "L")) == (
        " ".join(FINDINGS),
        " ".join(IMPRESSION),
    )


def test_equal_sentences_are_said_once() -> None:
    drawn = draws(Captions((("no mass", "no mass"),), "L"), CaptionSampler(), 3)
    assert drawn == [("no mass", "no mass")] * 3


def test_nothing_to_say_is_false() -> None:
    assert not Captions((), "L") and Captions((FINDINGS,), "L") and Captions((), "L", ((("mass", 1),),))


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("mass in the left breast", "mass in the right breast"),
        ("right: none. left: mass", "left: none. right: mass"),
        ("the leftmost copyright stays", "the leftmost copyright stays"),
        ("right-sided", "left-sided"),
        ("no side named", "no side named"),
    ],
)
def test_swap_sides(text: str, swapped: str) -> None:
    assert swap_sides(text) == swapped


@settings(deadline=None)
@given(st.lists(st.sampled_from(["left", "right", "mass", "breast", "upright", ",", "."]), max_size=12).map(" ".join))
def test_swapping_sides_twice_gives_the_text_back(text: str) -> None:
    assert swap_sides(swap_sides(text)) == text
    assert swap_sides(text).count("left") == sum(word == "right" for word in text.split())
