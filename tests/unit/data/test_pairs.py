import logging
from collections import Counter
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip.artifacts import BREASTS
from mammoclip.config import Mode
from mammoclip.data.augmentation import AugmentationStrength
from mammoclip.data.captions import Captions
from mammoclip.data.mixture import Mixture
from mammoclip.data.pairs import Breast, Example, PairSampler, trainable_breasts
from mammoclip.errors import ArtifactError, ConfigError

STILL = AugmentationStrength(0.0, False, 0, 0, (1, 1), 0, 0, 1)
STRONG = AugmentationStrength(1.0, True, 20, 0.1, (0.8, 1.2), 20, 10, 15)

TEXTS = (("there is a mass", "it is in the left breast"), ("birads 4", "biopsy of the left breast", "short follow up"))
IMAGES = {name: np.random.default_rng(number).integers(0, 255, (24, 16), dtype=np.uint8) for number, name in
          enumerate(["d/cc1", "d/cc2", "d/mlo1", "d/mlo2"])}  # fmt: skip

CAPTIONS = Captions(TEXTS, "L")
TWO_VIEWS = Breast(("d/cc1",), ("d/mlo1",), CAPTIONS)
MANY = Breast(("d/cc1", "d/cc2"), ("d/mlo1", "d/mlo2"), CAPTIONS)
ONE_IMAGE = Breast(("d/cc1",), (), CAPTIONS)
TWO_OF_ONE_VIEW = Breast((), ("d/mlo1", "d/mlo2"), CAPTIONS)


MODES: tuple[Mode, Mode] = ("strict", "compat")


def sampler(*breasts: Breast, strength: AugmentationStrength | None = STILL, seed: int = 7, flip: float = 0.0) -> Any:
    return PairSampler(breasts, IMAGES.__getitem__, seed, strength, flip)


def name_of(image: np.ndarray) -> str:
    return next(name for name, stored in IMAGES.items() if np.array_equal(stored, image))


def names(example: Example) -> tuple[str, str]:
    return name_of(example.image_1), name_of(example.image_2)


def same(one: Example, other: Example) -> bool:
    return (
        np.array_equal(one.image_1, other.image_1)
        and np.array_equal(one.image_2, other.image_2)
        and (one.text_1, one.text_2) == (other.text_1, other.text_2)
    )


def breast_rows(*rows: tuple[str, str, str, list[list[str]]], dataset: str = "d", **values: Any) -> pl.DataFrame:
    """Rows of the breasts table from (patient, side, split, texts), one CC and one MLO image each."""
    frame = pl.DataFrame(
        [
            (dataset, patient, side, split, [f"{patient}-{side}-cc"], [f"{patient}-{side}-mlo"], texts)
            for patient, side, split, texts in rows
        ],
        schema=dict(list(BREASTS.schema.items())[:7]),
        orient="row",
    )
    lists = {name: [] for name in ("cc_positives", "cc_negatives", "mlo_positives", "mlo_negatives")}
    rest = {**lists, "density": None, "birads": None, **values}
    return frame.with_columns(pl.lit(value, BREASTS.schema[name]).alias(name) for name, value in rest.items())


def test_an_example_depends_on_seed_epoch_and_index_alone() -> None:
    one, other = sampler(MANY, TWO_VIEWS, strength=STRONG), sampler(MANY, TWO_VIEWS, strength=STRONG)
    forwards = {(epoch, index): one.example(epoch, index) for epoch in range(3) for index in range(2)}
    backwards = {(epoch, index): other.example(epoch, index) for epoch in (2, 1, 0) for index in (1, 0)}
    assert all(same(forwards[key], backwards[key]) for key in forwards)
    assert not same(forwards[0, 0], forwards[1, 0])
    assert not same(forwards[0, 0], sampler(MANY, TWO_VIEWS, strength=STRONG, seed=8).example(0, 0))


def test_equal_breasts_at_other_places_give_other_examples() -> None:
    twins = sampler(MANY, MANY, strength=STRONG)
    assert not same(twins.example(0, 0), twins.example(0, 1))


def test_both_views_are_used_when_both_exist_in_random_order() -> None:
    pairs = Counter(names(sampler(TWO_VIEWS).example(epoch, 0)) for epoch in range(400))
    assert set(pairs) == {("d/cc1", "d/mlo1"), ("d/mlo1", "d/cc1")}
    assert 150 < pairs["d/cc1", "d/mlo1"] < 250


def test_every_combination_of_views_is_drawn() -> None:
    pairs = Counter(names(sampler(MANY).example(epoch, 0)) for epoch in range(800))
    combinations = {(cc, mlo) for cc in MANY.cc_image_ids for mlo in MANY.mlo_image_ids}
    assert set(pairs) == combinations | {(mlo, cc) for cc, mlo in combinations}
    assert min(pairs.values()) > 60


def test_two_images_of_one_view_are_two_different_ones() -> None:
    pairs = {names(sampler(TWO_OF_ONE_VIEW).example(epoch, 0)) for epoch in range(60)}
    assert pairs == {("d/mlo1", "d/mlo2"), ("d/mlo2", "d/mlo1")}


def test_a_single_image_is_used_twice_and_augmented_twice() -> None:
    assert names(sampler(ONE_IMAGE).example(0, 0)) == ("d/cc1", "d/cc1")
    example = sampler(ONE_IMAGE, strength=STRONG).example(0, 0)
    assert not np.array_equal(example.image_1, example.image_2)


def test_texts_are_whole_sections_with_their_sentences_shuffled() -> None:
    sections = {" ".join(sorted(section)): section for section in TEXTS}
    orders: Counter[str] = Counter()
    drawn: Counter[tuple[int, int]] = Counter()
    for epoch in range(600):
        example = sampler(TWO_VIEWS).example(epoch, 0)
        places = []
        for text in (example.text_1, example.text_2):
            found = [place for place, section in enumerate(TEXTS) if all(sentence in text for sentence in section)]
            assert len(found) == 1 and len(text) == len(" ".join(TEXTS[found[0]]))
            places.append(found[0])
            orders[text] += 1
        drawn[places[0], places[1]] += 1
    assert len(sections) == 2 and len(orders) == 2 + 6  # every order of two and of three sentences
    assert set(drawn) == {(0, 0), (0, 1), (1, 0), (1, 1)}  # with replacement
    assert min(drawn.values()) > 100


def test_the_released_code_leaves_left_and_right_as_they_are_when_it_flips() -> None:
    strict, compat = (PairSampler([TWO_VIEWS], IMAGES.__getitem__, 7, STILL, 1.0, mode=mode) for mode in MODES)
    for epoch in range(20):
        plain = sampler(TWO_VIEWS).example(epoch, 0)
        flipped, released = strict.example(epoch, 0), compat.example(epoch, 0)
        assert np.array_equal(flipped.image_1, released.image_1)
        assert "left" in plain.text_1 and flipped.text_1 == plain.text_1.replace("left", "right")
        assert sorted(released.text_1.split()) == sorted(plain.text_1.split())


def test_a_flip_mirrors_both_images_and_exchanges_left_and_right() -> None:
    flips = []
    for epoch in range(200):
        plain, flipped = (sampler(TWO_VIEWS, flip=chance).example(epoch, 0) for chance in (0.0, 0.5))
        mirrored = np.array_equal(plain.image_1[:, ::-1], flipped.image_1)
        assert mirrored or np.array_equal(plain.image_1, flipped.image_1)
        assert np.array_equal(plain.image_2[:, ::-1] if mirrored else plain.image_2, flipped.image_2)
        for before, after in ((plain.text_1, flipped.text_1), (plain.text_2, flipped.text_2)):
            assert after == (before.replace("left", "right") if mirrored else before)
        flips.append(mirrored)
    assert 70 < sum(flips) < 130


def test_validation_is_fixed_and_plain() -> None:
    fixed = sampler(MANY, ONE_IMAGE, TWO_OF_ONE_VIEW, strength=None, flip=1.0)
    for epoch in range(3):
        assert fixed.order(epoch, 3).tolist() == [[0, 1, 2]]
        assert fixed.order(epoch, 2).tolist() == [[0, 1]]
        assert same(fixed.example(epoch, 0), fixed.example(0, 0))
    example = fixed.example(0, 0)
    assert names(example) == ("d/cc1", "d/mlo1")
    assert (example.text_1, example.text_2) == (" ".join(TEXTS[0]), " ".join(TEXTS[1]))
    assert names(fixed.example(0, 1)) == ("d/cc1", "d/cc1")
    assert names(fixed.example(0, 2)) == ("d/mlo1", "d/mlo1")


def test_an_epoch_sees_every_breast_once_in_an_order_of_its_own() -> None:
    training = sampler(*[TWO_VIEWS] * 50)
    orders = [training.order(epoch, 10).ravel().tolist() for epoch in range(4)]
    assert all(sorted(order) == list(range(len(training))) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert sampler(*[TWO_VIEWS] * 50).order(2, 10).ravel().tolist() == orders[2]


def test_weights_say_how_often_the_breasts_of_a_data_set_are_seen() -> None:
    breasts = [*cohort(10), *cohort(5, "e")]
    training = PairSampler(breasts, IMAGES.__getitem__, 7, STILL, mixture=Mixture({"d": 0.5, "e": 3.0}))
    seen = Counter(breasts[index % 30].dataset for index in training.order(0, 1).ravel())
    assert seen == {"d": 10, "e": 30}
    with pytest.raises(ConfigError, match="dataset_weights names 'f', of which no breast is trained on"):
        PairSampler(breasts, IMAGES.__getitem__, 7, STILL, mixture=Mixture({"f": 2.0}))


def test_a_breast_seen_again_in_an_epoch_is_drawn_anew() -> None:
    breasts = [MANY, TWO_VIEWS, ONE_IMAGE]
    training = PairSampler(breasts, IMAGES.__getitem__, 7, STRONG, mixture=Mixture({"": 2.0}))
    assert sorted(training.order(0, 6).ravel()) == [0, 1, 2, 3, 4, 5]
    for row in range(3):
        first, again = training.example(0, row), training.example(0, row + 3)
        assert first.patient == again.patient
        assert not np.array_equal(first.image_1, again.image_1)
        assert same(first, sampler(*breasts, strength=STRONG).example(0, row))  # a weight changes no first occurrence


def test_a_breast_seen_again_borrows_the_same_report_when_reports_are_shuffled() -> None:
    breasts = cohort(10)
    shuffled = PairSampler(breasts, IMAGES.__getitem__, 3, STILL, shuffle_reports=True, mixture=Mixture({"d": 2.0}))
    for row in range(len(breasts)):
        assert shuffled.example(0, row).text_1 == shuffled.example(0, row + len(breasts)).text_1


def test_warps_that_are_left_for_later_are_those_that_would_have_been_applied() -> None:
    """Same texts, same flip of left and right; what is missing in the image is in the nodes."""
    for epoch in range(20):
        now, later = (
            PairSampler([MANY], IMAGES.__getitem__, 7, STRONG, 0.5, warp_later=late).example(epoch, 0)
            for late in (False, True)
        )
        assert (now.text_1, now.text_2, now.warps) == (later.text_1, later.text_2, ())
        for image, wanted, nodes in zip(
            (later.image_1, later.image_2), (now.image_1, now.image_2), later.warps, strict=True
        ):
            rows, columns = (count * nodes.pitch_px for count in nodes.points.shape[:2])
            grid = cv2.resize(nodes.points, (columns, rows))[nodes.pitch_px :, nodes.pitch_px :][:24, :16]
            np.testing.assert_allclose(cv2.remap(image, grid, None, cv2.INTER_LINEAR), wanted, atol=1)


def test_validation_has_no_warp_to_leave_for_later() -> None:
    fixed = PairSampler([MANY], IMAGES.__getitem__, 7, None, warp_later=True)
    assert fixed.example(0, 0).warps == ()


def test_sixteen_bits_stay_sixteen_bits() -> None:
    deep = {name: image.astype(np.uint16) * 257 for name, image in IMAGES.items()}
    for epoch in range(20):
        example = PairSampler([MANY], deep.__getitem__, 7, STRONG, 0.5).example(epoch, 0)
        eight = PairSampler([MANY], IMAGES.__getitem__, 7, STRONG, 0.5).example(epoch, 0)
        assert example.image_1.dtype == example.image_2.dtype == np.uint16
        np.testing.assert_allclose(example.image_1 / 257, eight.image_1, atol=0.52)


def test_the_images_stored_are_left_alone() -> None:
    before = {name: image.copy() for name, image in IMAGES.items()}
    for epoch in range(20):
        sampler(MANY, strength=STRONG, flip=0.5).example(epoch, 0)
    assert all(np.array_equal(IMAGES[name], image) for name, image in before.items())


def test_trainable_breasts_have_an_image_and_a_caption_and_the_others_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = breast_rows(
        ("p1", "L", "train", [["a mass", "b"]]),
        ("p2", "L", "train", []),
        ("p3", "R", "test", [["c"]]),
        ("p4", "R", "train", [["d"]]),
    ).with_columns(
        cc_image_ids=pl.when(pl.col("patient_id") == "p4")
        .then(pl.lit([], pl.List(pl.String)))
        .otherwise("cc_image_ids"),
        mlo_image_ids=pl.when(pl.col("patient_id") == "p4")
        .then(pl.lit([], pl.List(pl.String)))
        .otherwise("mlo_image_ids"),
    )
    captions = Captions((("a mass", "b"),), "L")
    with caplog.at_level(logging.INFO):
        assert trainable_breasts(rows, "test")
        assert not caplog.records  # nothing is left out, nothing is said
        found = trainable_breasts(rows, "train")
    (line,) = caplog.messages
    assert line == "pairs: 2 of 3 train breasts are left out: 1 without image, 1 without report or label"
    assert found == [Breast(("d/p1-L-cc",), ("d/p1-L-mlo",), captions, "d", "d/p1")]
    with pytest.raises(ArtifactError, match="no breast of the split 'validation' has both an image and a report or"):
        trainable_breasts(rows, "validation")


def test_a_breast_without_a_report_speaks_by_its_labels() -> None:
    rows = breast_rows(
        ("p", "R", "train", []),
        cc_positives=["mass"],
        cc_negatives=["asymmetry"],
        mlo_positives=["no_finding"],
        density=2,
    )
    (breast,) = trainable_breasts(rows, "train")
    assert breast.captions == Captions(
        (), "R", ((("mass", 1), ("asymmetry", 0), ("density", 2)), (("no_finding", 1), ("density", 2)))
    )
    without_mlo = rows.with_columns(mlo_image_ids=pl.lit([], pl.List(pl.String)))
    assert len(trainable_breasts(without_mlo, "train")[0].captions.views) == 1


def cohort(num_patients: int, dataset: str = "d") -> list[Breast]:
    texts = [(side, f"{dataset} {side} {number}") for side in "LR" for number in range(num_patients)]
    return [Breast(("d/cc1",), ("d/mlo1",), Captions(((text,),), side), dataset) for side, text in texts]  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 3), st.integers(2, 9), st.integers(2, 9), st.sampled_from([STILL, None]))
def test_shuffled_reports_come_from_another_patient_of_the_same_side_each_once_an_epoch(
    seed: int, epoch: int, many: int, few: int, strength: AugmentationStrength | None
) -> None:
    breasts = [*cohort(many), *cohort(few, "e")]
    shuffled = PairSampler(breasts, IMAGES.__getitem__, seed, strength, shuffle_reports=True)
    given = [shuffled.example(epoch, index).text_1 for index in range(len(breasts))]
    own = [breast.captions.texts[0][0] for breast in breasts]
    assert sorted(given) == sorted(own)
    for text, other in zip(own, given, strict=True):
        assert text != other
        assert text.rsplit(" ", 1)[0] == other.rsplit(" ", 1)[0]  # data set and side


def test_another_epoch_shuffles_reports_anew_but_not_the_images() -> None:
    shuffled = PairSampler([*cohort(20)], IMAGES.__getitem__, 3, STILL, shuffle_reports=True)
    examples = [[shuffled.example(epoch, index) for index in range(40)] for epoch in (0, 1, 0)]
    texts = [[example.text_1 for example in epoch] for epoch in examples]
    assert texts[0] == texts[2] != texts[1]
    assert all(set(names(example)) == {"d/cc1", "d/mlo1"} for epoch in examples for example in epoch)


def test_reports_of_a_single_breast_cannot_be_shuffled() -> None:
    with pytest.raises(ArtifactError, match="a side of a data set has a single breast"):
        PairSampler(cohort(1), IMAGES.__getitem__, 0, STILL, shuffle_reports=True)
