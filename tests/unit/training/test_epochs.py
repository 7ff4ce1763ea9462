"""Epochs: which is chosen, when they end, and that a stop between or within them changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mammoclip.errors import Interrupted
from mammoclip.training.epochs import Epoch, Progress, train_epochs
from mammoclip.training.interruption import StopRequest

SCORES = [0.2, 0.5, 0.5, 0.4, 0.7, 0.1]


def train(work: Path, scores: list[float] = SCORES, patience: int | None = None, stop_in: int = -1) -> Progress:
    """Train a number by AdamW towards the number of the epoch; asked to stop, an epoch ends in the middle."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    done: list[int] = []

    def epoch(number: int, _: StopRequest) -> float:
        loss = (model.weight - number).square().sum()
        for _ in range(3):
            optimizer.zero_grad()
            loss = (model.weight - number).square().sum()
            loss.backward()
            optimizer.step()
            if number == stop_in:
                raise Interrupted("asked to stop")
        done.append(number)
        return loss.item()

    return train_epochs(
        model,
        optimizer,
        epoch,
        lambda: scores[done[-1]],
        num_epochs=len(scores),
        patience=patience,
        work=work,
        rank=0,
        what="toy",
    )


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_the_first_of_the_best_epochs_is_chosen(scores: list[float]) -> None:
    assert Progress([Epoch(0, score) for score in scores]).selected == scores.index(max(scores))


def test_the_weights_kept_are_those_of_the_chosen_epoch(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    assert whole.selected == 4
    until = train(tmp_path / "until", SCORES[:5])
    assert torch.equal(whole.best["weight"], until.best["weight"])


@pytest.mark.parametrize(("patience", "done"), [(None, 6), (1, 3), (2, 4), (3, 6)])
def test_patience_counts_epochs_without_a_better_score(tmp_path: Path, patience: int | None, done: int) -> None:
    assert len(train(tmp_path, patience=patience).epochs) == done


@pytest.mark.parametrize("stop_in", range(6))
def test_what_was_stopped_in_any_epoch_goes_on_to_the_very_same_result(tmp_path: Path, stop_in: int) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", stop_in=stop_in)
    again = train(tmp_path / "stopped")
    assert again.epochs == whole.epochs
    assert torch.equal(again.best["weight"], whole.best["weight"])


def test_of_the_checkpoints_the_newest_two_are_kept(tmp_path: Path) -> None:
    train(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-5.pt", "step-6.pt"]
