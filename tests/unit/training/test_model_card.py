from __future__ import annotations

import polars as pl
import pytest

from mammoclip.artifacts import STEPS
from mammoclip.config import PretrainSection, Run
from mammoclip.datasets import ADAPTERS
from mammoclip.training.model_card import Seen, model_card

SECTION = PretrainSection(
    datasets=["hospital", "phantom"],
    runs={"main": Run()},
    image_weights="weights.pth",
    global_batch_size=6,
    gpus=4,
    num_epochs=15,
    height_px=1520,
    width_px=912,
)

SOURCES = {"hospital": ADAPTERS["image_report"].source, "phantom": ADAPTERS["phantom"].source}
SEEN = Seen(SOURCES, {"hospital": 640, "phantom": 12}, {"zero_shot_auroc_mass": 0.8125})


def card_of(name: str, control: str, steps: pl.DataFrame, seen: Seen = SEEN, **changes: object) -> str:
    section = SECTION.model_copy(update=changes)
    return model_card(name, control, section, steps, seen, seed=7, version="1.2.3")


@pytest.fixture
def steps() -> pl.DataFrame:
    """The lowest loss of all is a training loss; the best validation loss is that of the first epoch."""
    rows = [("train", 0, 1, 0.1), ("validation", 0, 1, 1.2344), ("train", 1, 2, 0.2), ("validation", 1, 2, 3.0)]
    rest = (0.0, 0.0, 0.0, None, 0.07)
    return pl.DataFrame([(*row, *rest) for row in rows], schema=STEPS.schema, orient="row")


def test_the_card_says_what_the_model_is_and_what_it_saw(steps: pl.DataFrame) -> None:
    card = card_of("mammo-clip", "none", steps)
    assert card.startswith("# mammo-clip\n")
    for row in (
        "| role | trained |",
        "| image encoder | efficientnet-b5 (weights.pth) |",
        "| text encoder | emilyalsentzer/Bio_ClinicalBERT |",
        "| image size | 1520 x 912 px |",
        "| data sets seen in training | hospital (640 breasts), phantom (12 breasts) |",
        "| epochs | 15 |",
        "| batch size, processes | 6, 4 |",
        "| objective | multi_view |",
        "| seed | 7 |",
        "| code | mammoclip 1.2.3 |",
        "| best validation loss | 1.234 |",
        "| validation zero shot auroc mass | 0.812 |",
    ):
        assert row in card.splitlines()


def test_every_data_set_is_named_with_its_licence(steps: pl.DataFrame) -> None:
    card = card_of("m", "none", steps, Seen({**SOURCES, "vindr": ADAPTERS["vindr"].source}))
    assert "- vindr: VinDr-Mammo 1.0 <https://physionet.org/content/vindr-mammo/1.0.0>, licence: PhysioNet" in card
    assert "- hospital: your own images and reports, licence: yours." in card
    assert "must not be released" not in card


def test_weights_that_a_licence_keeps_from_being_released_say_so(steps: pl.DataFrame) -> None:
    forbidden = Seen({**SOURCES, "embed": ADAPTERS["embed"].source})
    assert [title[:5] for title in forbidden.keeps_from_release] == ["EMBED"] and SEEN.keeps_from_release == []
    assert "**These weights must not be released.** The licence of EMBED" in card_of("m", "none", steps, forbidden)
    assert "must not be released" not in card_of("m", "untrained", STEPS.empty(), Seen())


@pytest.mark.parametrize("control", ["none", "untrained", "shuffled_reports"])
def test_every_card_says_that_it_is_no_medical_device(control: str, steps: pl.DataFrame) -> None:
    assert "not a medical device, not for clinical use" in card_of("m", control, steps)


def test_the_card_of_the_untrained_control_claims_no_training() -> None:
    card = card_of("untrained", "untrained", STEPS.empty(), Seen())
    assert "| role | control: initial weights, never trained |" in card
    assert "| data sets seen in training | none |" in card
    assert "| epochs | 0 |" in card
    assert "| best validation loss | - |" in card


def test_the_card_of_the_shuffled_control_names_the_permutation(steps: pl.DataFrame) -> None:
    assert "reports permuted over patients" in card_of("shuffled", "shuffled_reports", steps)


def test_a_run_on_the_cpu_is_one_process(steps: pl.DataFrame) -> None:
    card = card_of("m", "none", steps, gpus=0)
    assert "| batch size, processes | 6, 1 |" in card


def test_an_image_encoder_without_pretrained_weights_says_so(steps: pl.DataFrame) -> None:
    card = card_of("m", "none", steps, image_weights=None)
    assert "| image encoder | efficientnet-b5 (random initial weights) |" in card
