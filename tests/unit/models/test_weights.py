import pickle

import pytest
import torch
from torch import nn

from mammoclip.errors import ModelError
from mammoclip.models.weights import load_into, read_weights


class Bomb:
    """Unpickling this with the plain unpickler would create the file ``path``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_reads_a_plain_state_dict(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "w.pth")
    assert torch.equal(read_weights(tmp_path / "w.pth")["weight"], torch.ones(2))


def test_a_malicious_pickle_runs_nothing(tmp_path):
    torch.save({"weight": Bomb(tmp_path / "owned")}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="read safely"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", pickle.dumps([1, 2], protocol=2)], ids=["empty", "garbage", "pickle"]
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        read_weights(tmp_path / name)


def test_a_truncated_file_is_named(tmp_path):
    torch.save({"weight": torch.ones(2000)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"w\.pth"):
        read_weights(tmp_path / "w.pth")


def test_a_training_checkpoint_is_refused(tmp_path):
    torch.save({"model": {"weight": torch.ones(2)}, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="plain state dict"):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"weight": torch.ones(2, 3)}, r"1 missing \(first: bias\)"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "more": torch.ones(1)}, r"1 unexpected \(first: more\)"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, r"1 of another shape \(first: weight\)"),
    ],
)
def test_weights_must_fit_exactly(state, problem):
    with pytest.raises(ModelError, match=problem):
        load_into(nn.Linear(3, 2), state, source="test")
