import json
from pathlib import Path

import pytest
import torch

from mammoclip.errors import ModelError
from mammoclip.models import load, save_pretrained

METADATA = {"data_sets": ["phantom"], "seed": 3}


@pytest.fixture
def saved(tiny_model, tokenizer, tmp_path):
    folder = tmp_path / "runs" / "demo"
    save_pretrained(tiny_model, tokenizer, folder, METADATA, image_size_px=(64, 32))
    return folder


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_loaded_model_computes_what_was_saved(saved, tiny_model, tokenizer):
    tiny_model.eval()
    images = torch.randn(2, 1, 64, 32)
    tokens = tokenizer(["no mass", "a mass"], padding=True, return_tensors="pt")
    loaded = load(saved)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(images), tiny_model.encode_image(images), atol=1e-5, rtol=1e-4)
        texts = tiny_model.encode_text(tokens["input_ids"], tokens["attention_mask"])
    torch.testing.assert_close(loaded.encode_text(["no mass", "a mass"]), texts)
    assert (loaded.metadata, loaded.image_size_px) == (METADATA, (64, 32))
    assert loaded.tokenizer.model_max_length == 256
    assert not loaded.model.training


def test_every_weight_survives_bit_by_bit_also_from_channels_last(tiny_model, tokenizer, tmp_path):
    tiny_model.to(memory_format=torch.channels_last)
    save_pretrained(tiny_model, tokenizer, tmp_path / "m", {}, image_size_px=(64, 32))
    loaded = load(tmp_path / "m").model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in tiny_model.state_dict().items())


def test_the_folder_moves_and_needs_no_hub(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    moved = saved.rename(tmp_path / "elsewhere")
    assert load(str(moved)).encode_text("a mass").shape == (1, 8)


def test_the_folder_holds_only_the_documented_files(saved):
    assert {path.name for path in saved.iterdir()} == {"model.safetensors", "config.json", "tokenizer"}
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]
    config = json.loads((saved / "config.json").read_text())
    assert (config["format"], config["version"]) == ("mammoclip-model", 1)
    assert config["image"]["normalisation"]["mean"] == 0.3089279


def test_saving_again_replaces_the_folder(saved, tiny_model, tokenizer):
    (saved / "stale.txt").touch()
    save_pretrained(tiny_model, tokenizer, saved, {"seed": 4}, image_size_px=(64, 32))
    assert load(saved).metadata == {"seed": 4}
    assert not (saved / "stale.txt").exists()


def test_a_failed_save_leaves_the_old_folder_and_no_debris(saved, tiny_model):
    class BrokenTokenizer:
        model_max_length = 256

        def save_pretrained(self, folder):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_pretrained(tiny_model, BrokenTokenizer(), saved, {}, image_size_px=(64, 32))
    assert load(saved).metadata == METADATA
    assert [path.name for path in saved.parent.iterdir()] == ["demo"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(saved, tiny_model, tokenizer, monkeypatch):
    rename = Path.rename

    def refuse_new(self, target):
        if self.name == "new":
            raise OSError("file system went away")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(OSError, match="went away"):
        save_pretrained(tiny_model, tokenizer, saved, {}, image_size_px=(64, 32))
    assert load(saved).metadata == METADATA


def test_loading_leaves_the_global_random_state_alone(saved):
    state = torch.random.get_rng_state()
    load(saved)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("changes", [{"version": 2}, {"format": "other"}])
def test_another_format_or_version_is_refused(saved, changes):
    edit_config(saved, **changes)
    with pytest.raises(ModelError, match="expected \\('mammoclip-model', 1\\)"):
        load(saved)


def test_a_configuration_that_is_no_json_object_is_refused(saved):
    for content in ("[]", "{"):
        (saved / "config.json").write_text(content)
        with pytest.raises(ModelError, match=r"config\.json"):
            load(saved)


def test_a_missing_key_is_named(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    del config["embedding_dim"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="embedding_dim"):
        load(saved)


def test_weights_of_another_architecture_are_refused(saved):
    edit_config(saved, embedding_dim=9)
    with pytest.raises(ModelError, match="of another shape"):
        load(saved)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "runs/no/such/folder"])
def test_an_unknown_name_says_what_to_do(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="download the model folder"):
        load(name)


def test_a_hub_id_is_downloaded_without_pickles(saved, monkeypatch):
    asked = {}

    def fake_download(repo_id, allow_patterns):
        asked.update(repo_id=repo_id, allow_patterns=allow_patterns)
        return str(saved)

    monkeypatch.setattr("mammoclip.models.checkpoint.snapshot_download", fake_download)
    assert load("someone/mammoclip").metadata == METADATA
    assert asked["repo_id"] == "someone/mammoclip"
    assert not any(pattern.endswith((".bin", ".pt", ".pkl", "*.*")) for pattern in asked["allow_patterns"])
