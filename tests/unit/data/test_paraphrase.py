"""The paraphrase job: each text once, whatever interrupts it."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mammoclip.data.paraphrase import paraphrase_texts
from mammoclip.models.back_translation import BackTranslator
from tests.unit.models.marian import write_marian

TEXTS = [f"sentence number {number:02d}" for number in range(10)]


class Reverser:
    """Paraphrases a text by its words in reverse, and notes the batches it was given; dies after some of them."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.dies_after = dies_after

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]

    def __call__(self, batch: list[str]) -> list[list[str]]:
        if len(self.batches) == self.dies_after:
            raise KeyboardInterrupt
        self.batches.append(batch)
        return [[" ".join(text.split()[::-1]), text.upper()] if "03" not in text else [] for text in batch]


def run(
    cache: Path, paraphrase: Reverser, texts: list[str] = TEXTS, key: str = "k", batch_size: int = 3
) -> pl.DataFrame:
    return paraphrase_texts(texts, paraphrase, key, cache, batch_size)


def test_every_distinct_text_has_a_row_in_sorted_order(tmp_path: Path) -> None:
    reverser = Reverser()
    found = run(tmp_path, reverser, [*TEXTS[::-1], *TEXTS])
    assert found.schema == {"text": pl.String, "paraphrases": pl.List(pl.String)}
    assert found["text"].to_list() == TEXTS
    assert found["paraphrases"][1].to_list() == ["01 number sentence", "SENTENCE NUMBER 01"]
    assert found["paraphrases"][3].to_list() == []
    assert reverser.batches == [TEXTS[0:3], TEXTS[3:6], TEXTS[6:9], TEXTS[9:]]


def test_a_rerun_computes_nothing_and_new_texts_alone_are_computed(tmp_path: Path) -> None:
    first = run(tmp_path, Reverser())
    again = Reverser()
    assert_frame_equal(run(tmp_path, again, batch_size=4), first)
    assert again.batches == []
    more = Reverser()
    assert run(tmp_path, more, ["a new one", *TEXTS[:2]])["text"].to_list() == ["a new one", *TEXTS[:2]]
    assert more.texts == ["a new one"]


def test_an_interrupted_job_goes_on_after_its_last_finished_batch(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "interrupted", Reverser(dies_after=2))
    rest = Reverser()
    assert_frame_equal(run(tmp_path / "interrupted", rest), run(tmp_path / "whole", Reverser()))
    assert rest.texts == TEXTS[6:]


KILLED = """
import os, signal, sys
from pathlib import Path
from mammoclip.data.paraphrase import paraphrase_texts

def paraphrase(batch):
    if batch[0] == "sentence number 06":
        os.kill(os.getpid(), signal.SIGKILL)
    return [["before the kill"] for _ in batch]

paraphrase_texts([f"sentence number {number:02d}" for number in range(10)], paraphrase, "k", Path(sys.argv[1]), 3)
"""


def test_a_killed_job_keeps_its_finished_batches(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    rest = Reverser()
    found = run(tmp_path, rest)
    assert rest.texts == TEXTS[6:]
    assert found["paraphrases"].to_list()[:6] == [["before the kill"]] * 6


def test_another_key_finds_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    first, other, again = Reverser(), Reverser(), Reverser()
    run(tmp_path, first, key="model a")
    run(tmp_path, other, key="model b")
    run(tmp_path, again, key="model a")
    assert first.texts == other.texts == TEXTS
    assert again.texts == []


@pytest.mark.parametrize("damage", [b"", b"{", b'{"a": 1}', b"\xff\xfe"])
def test_the_texts_of_a_damaged_file_are_computed_again(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(tmp_path, Reverser())
    damaged = min(tmp_path.glob("*.json"))
    damaged.write_bytes(damage)
    repair = Reverser()
    with caplog.at_level(logging.WARNING, "mammoclip"):
        assert_frame_equal(run(tmp_path, repair), whole)
    assert len(repair.batches) == 1
    assert caplog.messages == [f"{damaged} is damaged and was deleted; its texts are paraphrased again"]
    caplog.clear()
    run(tmp_path, Reverser())
    assert not caplog.messages


def test_a_method_that_loses_texts_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        paraphrase_texts(TEXTS, lambda batch: [[] for _ in batch[1:]], "k", tmp_path, 3)
    assert not list(tmp_path.iterdir())


def test_no_texts_are_no_rows(tmp_path: Path) -> None:
    assert run(tmp_path, Reverser(), []).is_empty()


def test_progress_counts_the_texts_that_were_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, Reverser(), TEXTS[:4])
    with caplog.at_level(logging.INFO, "mammoclip"):
        run(tmp_path, Reverser())
    assert caplog.messages == ["paraphrase: texts: 6/6"]


@given(order=st.permutations(TEXTS), batch_size=st.integers(1, 12))
def test_neither_order_nor_batches_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], batch_size: int
) -> None:
    found = run(tmp_path_factory.mktemp("cache"), Reverser(), order, batch_size=batch_size)
    assert found["text"].to_list() == TEXTS
    assert found["paraphrases"].to_list() == Reverser()(TEXTS)


def test_back_translation_resumed_equals_back_translation_in_one_go(tmp_path: Path) -> None:
    sentences = (
        "no mass is seen",
        "a mass in the left breast",
        "no suspicious calcification",
        "dense breasts are seen",
    )
    pivots = ("nessuna massa", "massa nel seno sinistro", "nessuna calcificazione", "seni densi")
    there = write_marian(tmp_path / "there", list(zip(sentences, pivots, strict=True)))
    back = write_marian(tmp_path / "back", list(zip(pivots, sentences, strict=True)))
    translator = BackTranslator(there, back, paraphrases_per_text=2, temperature=3.0)
    calls: list[list[str]] = []

    def dies_in_the_second_batch(batch: list[str]) -> list[list[str]]:
        if calls:
            raise KeyboardInterrupt
        calls.append(batch)
        return translator.paraphrase(batch)

    key, resumed = translator.identity, tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        paraphrase_texts(sentences, dies_in_the_second_batch, key, resumed, 3)
    uninterrupted = paraphrase_texts(sentences, translator.paraphrase, key, tmp_path / "whole", 3)
    assert any(len(paraphrases) for paraphrases in uninterrupted["paraphrases"])
    assert_frame_equal(paraphrase_texts(sentences, translator.paraphrase, key, resumed, 2), uninterrupted)
