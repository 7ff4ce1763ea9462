import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel

from mammoclip.errors import ModelError
from mammoclip.models.text_encoder import (
    load_text_encoder,
    load_tokenizer,
    pool_last_token,
    text_encoder_from_config,
    tokenise,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=5))
def test_pooling_takes_the_last_attended_token_wherever_padding_is(rows):
    hidden = torch.arange(len(rows) * 6 * 2, dtype=torch.float32).reshape(len(rows), 6, 2)
    pooled = pool_last_token(hidden, torch.tensor(rows, dtype=torch.int64))
    for row, hidden_row, pooled_row in zip(rows, hidden, pooled, strict=True):
        assert torch.equal(pooled_row, hidden_row[max(i for i, attended in enumerate(row) if attended)])


def test_features_do_not_depend_on_the_padding(minilm_folder, tokenizer):
    encoder = load_text_encoder(minilm_folder).eval()
    assert encoder.num_features == 384
    short = "no mass"
    with torch.no_grad():
        alone = encoder(*tokenise(tokenizer, [short]))
        batch = encoder(*tokenise(tokenizer, [short, "a spiculated mass in the upper outer left breast"]))
    torch.testing.assert_close(alone[0], batch[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(batch[0], batch[1], atol=1e-2)


def test_weights_are_float32_and_without_a_pooler(minilm_folder):
    state = load_text_encoder(minilm_folder).state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert all(name.startswith("text_encoder.") and "pooler" not in name for name in state)


def test_configuration_rebuilds_the_same_architecture(minilm_folder):
    encoder = load_text_encoder(minilm_folder)
    rebuilt = text_encoder_from_config(encoder.config)
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    assert {name: value.shape for name, value in rebuilt.state_dict().items()} == expected


@pytest.mark.parametrize("config", [{}, {"model_type": "no-such-model"}])
def test_an_unknown_architecture_is_refused(config):
    with pytest.raises(ModelError, match="unknown text encoder"):
        text_encoder_from_config(config)


def test_long_texts_are_cut_at_256_tokens_and_keep_their_end_token(tokenizer):
    input_ids, attention_mask = tokenise(tokenizer, ["mass " * 400, "mass"])
    assert input_ids.shape == attention_mask.shape == (2, 256)
    assert input_ids[0, -1] == tokenizer.sep_token_id
    assert attention_mask.sum(dim=1).tolist() == [256, 3]


def test_a_shorter_limit_is_kept(minilm_folder):
    assert tokenise(load_tokenizer(minilm_folder, max_tokens=8), ["mass " * 20])[0].shape == (1, 8)


@pytest.mark.parametrize("load", [load_text_encoder, load_tokenizer])
def test_an_empty_folder_says_what_to_do(tmp_path, load):
    with pytest.raises(ModelError, match=r"give a folder with config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("load", [load_text_encoder, load_tokenizer])
def test_an_unreachable_hub_says_what_to_do(monkeypatch, tmp_path, load):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="Hugging Face hub"):
        load("nobody/no-such-model")


def test_texts_of_mixed_length_get_the_features_that_each_gets_alone(minilm_folder, tokenizer):
    encoder = load_text_encoder(minilm_folder).eval()
    texts = [" ".join(["no mass in the left breast"] * (1 + 7 * i % 11)) for i in range(33)]
    with torch.no_grad():
        together = encoder(*tokenise(tokenizer, texts))
        alone = torch.cat([encoder(*tokenise(tokenizer, [text])) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_frozen_layers_get_no_gradient_and_no_dropout(minilm_folder, tokenizer):
    encoder = load_text_encoder(minilm_folder)
    encoder.freeze(4)
    encoder.train()
    encoder(*tokenise(tokenizer, ["no mass", "a mass"])).sum().backward()
    for name, parameter in encoder.text_encoder.named_parameters():
        frozen = name.startswith("embeddings.") or (name.startswith("encoder.layer.") and int(name.split(".")[2]) < 4)
        assert (parameter.grad is None) == frozen, name
    modes = [{module.training for module in layer.modules()} for layer in encoder.text_encoder.encoder.layer]
    assert modes == [{False}] * 4 + [{True}] * 2


def test_freezing_more_layers_than_there_are_is_an_error(minilm_folder):
    with pytest.raises(ModelError, match="cannot freeze 7 layers: the text encoder has 6"):
        load_text_encoder(minilm_folder).freeze(7)


@pytest.fixture(params=["bert", "roberta", "distilbert", "modernbert"])
def tiny_folder(request, tmp_path) -> Path:
    """A tiny text encoder of each family on disk."""
    if request.param == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "pad_token_id": 0}
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        sizes |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    config = AutoConfig.for_model(request.param, vocab_size=99, **sizes)
    AutoModel.from_config(config).save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def random_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts of 5 and 7 tokens."""
    attention_mask = (torch.arange(7) < torch.tensor([[5], [7]])).long()
    return torch.randint(5, 99, (2, 7)) * attention_mask, attention_mask


def test_every_family_loads_and_is_rebuilt_from_its_configuration(tiny_folder):
    encoder = load_text_encoder(tiny_folder).eval()
    rebuilt = text_encoder_from_config(json.loads(json.dumps(encoder.config))).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    tokens = random_tokens()
    with torch.no_grad():
        features = encoder(*tokens)
        assert features.shape == (2, encoder.num_features) == (2, 16)
        assert torch.equal(rebuilt(*tokens), features)


def test_every_family_freezes_and_checkpoints_without_changing_a_value(tiny_folder):
    tokens = random_tokens()
    plain, saving = load_text_encoder(tiny_folder), load_text_encoder(tiny_folder)
    saving.checkpoint_activations()
    outputs = []
    for encoder in (plain, saving):
        encoder.freeze(1)
        encoder.train()
        torch.manual_seed(1)  # for dropout
        outputs.append(encoder(*tokens))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    gradients = [{name: p.grad for name, p in encoder.named_parameters()} for encoder in (plain, saving)]
    trained = {name for name, gradient in gradients[0].items() if gradient is not None}
    assert trained and not any("embeddings." in name or ".0." in name for name in trained)
    assert trained == {name for name, gradient in gradients[1].items() if gradient is not None}
    for name in trained:
        torch.testing.assert_close(gradients[1][name], gradients[0][name], msg=name)


def test_a_model_that_cannot_checkpoint_says_so(monkeypatch, minilm_folder):
    encoder = load_text_encoder(minilm_folder)
    monkeypatch.setattr(type(encoder.text_encoder), "supports_gradient_checkpointing", False)
    with pytest.raises(ModelError, match="cannot checkpoint"):
        encoder.checkpoint_activations()
