from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mammoclip.artifacts import FEATURES, write_table
from mammoclip.evaluation.features import extract_features
from mammoclip.models import EfficientNet, LoadedModel, MammoClip, normalise
from mammoclip.models.text_encoder import text_encoder_from_config

SIZE_PX = (64, 32)
IDS = [f"image-{number}" for number in (3, 1, 4, 0, 5)]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = {"model_type": "bert", "vocab_size": 99, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = MammoClip(EfficientNet("efficientnet-lite0"), text_encoder_from_config(text), embedding_dim=8)
    return LoadedModel(clip.eval(), tokenizer=None, image_size_px=SIZE_PX, metadata={})


def read_image(image_id: str) -> np.ndarray:
    number = int(image_id.removeprefix("image-"))
    return np.random.default_rng(number).integers(0, 200 + number, SIZE_PX, np.uint8)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_features_equal_those_of_one_image_at_a_time_whatever_the_batch_size(
    model: LoadedModel, batch_size: int
) -> None:
    table = extract_features(model, IDS, read_image, batch_size, "test")
    assert table["image_id"].to_list() == IDS
    for image_id, pooled, embedding in table.rows():
        image = torch.from_numpy(read_image(image_id))[None]
        with torch.no_grad():
            expected = model.model.image_features(normalise(image))[0]
        torch.testing.assert_close(torch.tensor(pooled), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            torch.tensor(embedding),
            model.encode_image(model.preprocess([read_image(image_id)]))[0],
            atol=1e-5,
            rtol=1e-5,
        )


def test_different_images_have_different_features(model: LoadedModel) -> None:
    table = extract_features(model, IDS, read_image, 2, "test")
    assert len({tuple(row) for row in table["embedding"].to_list()}) == len(IDS)


def test_features_are_the_published_table(model: LoadedModel, tmp_path: Path) -> None:
    table = extract_features(model, IDS, read_image, 2, "test")
    assert table.schema == FEATURES.schema
    write_table(table, FEATURES, tmp_path / "features.parquet")
    assert set(table["pooled"].list.len()) == {1280}
    assert table["embedding"].list.eval(pl.element().pow(2)).list.sum().to_list() == pytest.approx([1.0] * len(IDS))


def test_extracting_leaves_the_model_as_it_was(model: LoadedModel) -> None:
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    extract_features(model, IDS, read_image, 2, "test")
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


def test_no_image_gives_an_empty_table(model: LoadedModel) -> None:
    assert extract_features(model, [], read_image, 2, "test").equals(FEATURES.empty())
