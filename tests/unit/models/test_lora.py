import sys

import pytest
import torch

from mammoclip.errors import ModelError
from mammoclip.models.lora import add_lora, merged_state
from mammoclip.models.text_encoder import load_text_encoder, tokenise

TEXTS = ["no mass", "a spiculated mass in the left breast"]


def test_adapters_sit_on_queries_and_values_and_start_without_effect(minilm_folder, tokenizer):
    plain, adapted = load_text_encoder(minilm_folder).eval(), load_text_encoder(minilm_folder, lora_rank=4).eval()
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    layers = [f"text_encoder.encoder.layer.{i}.attention.self.{part}" for i in range(6) for part in ("query", "value")]
    assert trained == {f"{layer}.lora_{factor}.default.weight" for layer in layers for factor in "AB"}
    assert adapted.get_parameter(f"{layers[0]}.lora_A.default.weight").shape == (4, 384)
    tokens = tokenise(tokenizer, TEXTS)
    with torch.no_grad():
        assert torch.equal(adapted(*tokens), plain(*tokens))


def test_merging_adds_the_product_of_the_factors(minilm_folder):
    encoder, plain = load_text_encoder(minilm_folder, lora_rank=4), load_text_encoder(minilm_folder).state_dict()
    layer = "text_encoder.encoder.layer.2.attention.self.value"
    a, b = (encoder.get_parameter(f"{layer}.lora_{factor}.default.weight") for factor in "AB")
    torch.nn.init.normal_(b)
    merged = merged_state(encoder)
    assert merged.keys() == plain.keys()
    torch.testing.assert_close(merged[f"{layer}.weight"], plain[f"{layer}.weight"] + b.detach() @ a.detach())
    assert all(torch.equal(value, plain[name]) for name, value in merged.items() if name != f"{layer}.weight")


def test_adapters_train_in_the_layers_that_are_not_frozen(minilm_folder, tokenizer):
    encoder = load_text_encoder(minilm_folder, lora_rank=4)
    encoder.freeze(4)
    encoder(*tokenise(tokenizer, TEXTS)).sum().backward()
    trained = {int(name.split(".")[3]) for name, value in encoder.named_parameters() if value.grad is not None}
    assert trained == {4, 5}


def test_without_peft_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'mammoclip\[lora\]'"):
        add_lora(torch.nn.Linear(2, 2), 4)


def test_a_model_without_attention_is_refused():
    with pytest.raises(ModelError, match=r"none of its layers \(query, value"):
        add_lora(torch.nn.Sequential(torch.nn.Linear(2, 2)), 4)
