import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mammoclip.errors import ModelError
from mammoclip.models import ImageEncoderSpec, MammoClip, TextEncoderSpec, build_model, load, save_pretrained
from mammoclip.models.image_encoder import load_image_encoder

METADATA = {"data_sets": ["phantom"], "seed": 3}
STEM = "image_encoder._conv_stem.weight"


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


def test_a_folder_of_the_three_channel_era_computes_the_same(saved):
    """Its stem had three channels and its configuration no projection."""
    images = torch.randn(2, 1, 64, 32)
    expected = load(saved).encode_image(images)
    path = saved / "model.safetensors"
    state = load_file(path)
    shares = torch.tensor([0.2, 0.5, 0.3]).reshape(1, 3, 1, 1)
    save_file({**state, STEM: state[STEM] * shares}, path)
    config = json.loads((saved / "config.json").read_text())
    assert config.pop("projection") == "linear"
    (saved / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(load(saved).encode_image(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_models_of_timm_come_back_as_they_were(name, tiny_text_encoder, tokenizer, tmp_path):
    image_encoder = load_image_encoder(f"timm:{name}", None, (64, 32))
    model = MammoClip(image_encoder, tiny_text_encoder, embedding_dim=8, projection="mlp").eval()
    save_pretrained(model, tokenizer, tmp_path / "m", {}, image_size_px=(64, 32))
    images = torch.randn(2, 1, 64, 32)
    loaded = load(tmp_path / "m")
    assert loaded.model.image_encoder.config == image_encoder.config
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(images), model.encode_image(images))


def test_saved_adapters_are_merged_and_training_goes_on(minilm_folder, tokenizer, tmp_path):
    specs = ImageEncoderSpec("efficientnet-lite0"), TextEncoderSpec(minilm_folder, lora_rank=4)
    model = build_model(*specs, embedding_dim=8).eval()
    for name, parameter in model.text_encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_pretrained(model, tokenizer, tmp_path / "m", {}, image_size_px=(64, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("lora" in name or "base_layer" in name for name in load_file(tmp_path / "m" / "model.safetensors"))
    loaded, texts = load(tmp_path / "m"), ["no mass", "a mass"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.encode_text(tokens["input_ids"], tokens["attention_mask"])
    torch.testing.assert_close(loaded.encode_text(texts), expected, atol=1e-5, rtol=1e-4)


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
