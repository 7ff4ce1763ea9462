"""Mammo-FActOR: scores, loss and heat map against plain transcriptions of their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mammoclip.errors import ConfigError
from mammoclip.localization.factor import (
    MammoFactor,
    embed_attributes,
    factor_loss,
    grammar_sentences,
    heat_map,
    pool_maps,
    report_sentences,
    weighted_map,
)
from mammoclip.text import FINDINGS, PromptGrammar

B, C, MAP_SIZE, K, D, HIDDEN = 5, 7, (4, 3), 3, 6, 9
MODES = ["strict", "compat"]


@pytest.fixture
def factor() -> MammoFactor:
    torch.manual_seed(0)
    return MammoFactor(MAP_SIZE, torch.randn(K, D), HIDDEN, temperature=0.07)


def some_maps(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand((B, C, *MAP_SIZE), generator=torch.Generator().manual_seed(1)).to(dtype)


def some_scores(dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(8, K, generator=torch.Generator().manual_seed(2), dtype=dtype)


LABELS = torch.tensor(  # 8 x 3: all kinds; of the last attribute one image is known not to have it
    [[1, 0, 1], [0, 1, 1], [1, -1, 1], [0, 0, 1], [0, 0, -1], [-1, 1, -1], [1, 1, 1], [0, 0, 0]]
)


# Scores


def plain_mlps(factor: MammoFactor) -> list[nn.Sequential]:
    """The mappings one by one, of torch's own layers."""
    mlps = []
    for k in range(K):
        mlp = nn.Sequential(nn.Linear(math.prod(MAP_SIZE), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, D))
        values = (factor.first_weight[k], factor.first_bias[k], factor.second_weight[k], factor.second_bias[k])
        with torch.no_grad():
            for parameter, value in zip(mlp.parameters(), values, strict=True):
                parameter.copy_(value)
        mlps.append(mlp)
    return mlps


def plain_similarities(mlps: list[nn.Sequential], maps: Tensor, texts: Tensor) -> Tensor:
    return torch.stack(
        [F.cosine_similarity(mlp(maps.flatten(2)), text, dim=-1) for mlp, text in zip(mlps, texts, strict=True)], dim=-1
    )


def test_scores_are_the_largest_similarity_of_a_channel_over_the_temperature(factor: MammoFactor) -> None:
    maps = some_maps()
    expected = plain_similarities(plain_mlps(factor), maps, factor.text_embeddings)
    scores, similarities = factor(maps)
    assert scores.shape == (B, K)
    torch.testing.assert_close(similarities, expected)
    torch.testing.assert_close(scores, expected.amax(dim=1) / 0.07)
    with torch.no_grad():
        torch.testing.assert_close(factor(maps), (scores.detach(), similarities))


def test_gradients_are_those_of_backpropagation_through_every_channel(factor: MammoFactor) -> None:
    maps, labels = some_maps(), LABELS[:B]
    mlps = plain_mlps(factor)
    factor_loss(factor(maps)[0], labels, "strict").backward()
    scores = plain_similarities(mlps, maps, factor.text_embeddings).amax(dim=1) / 0.07
    factor_loss(scores, labels, "strict").backward()
    found = (factor.first_weight, factor.first_bias, factor.second_weight, factor.second_bias)
    for parameter, of_each in zip(found, zip(*(mlp.parameters() for mlp in mlps), strict=True), strict=True):
        expected = torch.stack([plain.grad for plain in of_each])
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-4)


def test_the_texts_are_normalised_saved_and_not_trained(factor: MammoFactor) -> None:
    torch.testing.assert_close(factor.text_embeddings.norm(dim=1), torch.ones(K))
    assert "text_embeddings" in factor.state_dict()
    assert {name for name, _ in factor.named_parameters()} == {
        "first_weight", "first_bias", "second_weight", "second_bias"
    }  # fmt: skip


def test_weights_are_drawn_as_those_of_linear_layers_are() -> None:
    torch.manual_seed(0)
    factor = MammoFactor((8, 8), torch.randn(2, 32), hidden=100)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 32))
    for name, layer in (("first", plain[0]), ("second", plain[2])):
        for kind in ("weight", "bias"):
            values, expected = getattr(factor, f"{name}_{kind}"), getattr(layer, kind)
            assert values[0].shape == expected.shape
            bounds = [tensor.detach().abs().max().item() for tensor in (values, expected)]
            assert bounds[0] == pytest.approx(bounds[1], rel=0.1)
    assert not torch.equal(factor.first_weight[0], factor.first_weight[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_maps_of_another_type_are_those_of_float32(factor: MammoFactor, dtype: torch.dtype) -> None:
    maps = some_maps(torch.float16)
    torch.testing.assert_close(factor(maps.to(dtype))[1], factor(maps.float())[1])


def test_maps_of_integers_are_taken_as_they_are(factor: MammoFactor) -> None:
    maps = (255 * some_maps()).to(torch.uint8)
    torch.testing.assert_close(factor(maps)[1], factor(maps.float())[1])


def test_an_attribute_does_not_depend_on_the_others(factor: MammoFactor) -> None:
    alone = MammoFactor(MAP_SIZE, factor.text_embeddings[1:2], HIDDEN, temperature=0.07)
    of_one = {name: value[1:2] for name, value in factor.state_dict().items()}
    alone.load_state_dict(of_one)
    torch.testing.assert_close(alone(some_maps())[1], factor(some_maps())[1][:, :, 1:2])


def test_a_text_of_ones_own_takes_the_place_of_an_attributes(factor: MammoFactor) -> None:
    maps, text = some_maps(torch.float16), F.normalize(torch.randn(D), dim=0)
    texts = factor.text_embeddings.clone()
    torch.testing.assert_close(factor.similarities_to(maps, 1, texts[1]), factor(maps)[1][:, :, 1])
    texts[1] = text
    expected = plain_similarities(plain_mlps(factor), maps.float(), texts)[:, :, 1]
    torch.testing.assert_close(factor.similarities_to(maps, 1, text), expected.detach())


# Loss


def plain_loss(scores: Tensor, labels: Tensor, mode: str) -> float:
    """As the reference has it: -log(e^s / (e^s + sum of e^s' over the images without)); compat: + e^0 a positive."""
    terms = []
    for k in range(labels.shape[1]):
        for i in range(len(labels)):
            if labels[i, k] != 1:
                continue
            own = math.exp(scores[i, k])
            others = sum(math.exp(scores[j, k]) for j in range(len(labels)) if labels[j, k] == 0)
            if mode == "compat":
                others += sum(math.exp(0) for j in range(len(labels)) if labels[j, k] == 1)
            terms.append(-math.log(own / (own + others)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_equals_a_plain_transcription(mode: str) -> None:
    assert float(factor_loss(some_scores(), LABELS, mode)) == pytest.approx(
        plain_loss(some_scores(), LABELS, mode), rel=1e-12
    )


def test_compat_adds_e_to_the_0_for_every_image_with_the_attribute() -> None:
    """With a score s: e^(loss) = 1 + (sum + num_positive e^0) / e^s."""
    scores, labels = torch.tensor([[0.3], [-1.2], [0.7]]).double(), torch.tensor([[1], [0], [1]])
    for row in (0, 2):
        one = torch.where(torch.arange(3)[:, None] == row, labels, torch.where(labels == 1, -1, labels))
        s = float(scores[row, 0])
        strict, compat = (math.exp(float(factor_loss(scores, one, mode))) for mode in MODES)
        assert compat - strict == pytest.approx(1 * math.exp(0) / math.exp(s))  # one positive image
    strict, compat = (float(factor_loss(scores, labels, mode)) for mode in MODES)
    sums = [math.exp(-1.2), math.exp(-1.2) + 2 * math.exp(0)]
    for found, others in zip((strict, compat), sums, strict=True):
        assert found == pytest.approx(np.mean([math.log(1 + others / math.exp(s)) for s in (0.3, 0.7)]))


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_is_that_of_finite_differences(mode: str) -> None:
    scores = some_scores().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: factor_loss(s, LABELS, mode), (scores,))


@pytest.mark.parametrize("mode", MODES)
def test_unknown_images_take_no_part(mode: str) -> None:
    scores, labels = some_scores()[:, :1], LABELS[:, :1]
    known = labels[:, 0] >= 0
    assert (~known).any()
    torch.testing.assert_close(factor_loss(scores, labels, mode), factor_loss(scores[known], labels[known], mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0, 1, -1])
def test_a_batch_without_contrast_has_no_gradient_that_is_not_finite(mode: str, value: int) -> None:
    scores = some_scores().requires_grad_()
    loss = factor_loss(scores, torch.full_like(LABELS, value), mode)
    loss.backward()
    assert torch.isfinite(scores.grad).all()
    if value != 1 or mode == "strict":
        assert loss.item() == 0
        assert not scores.grad.any()


def test_large_scores_do_not_overflow() -> None:
    """The paper's temperature makes scores up to 1 / 0.007."""
    scores = torch.tensor([[143.0], [-143.0]], requires_grad=True)
    for labels, expected in (([[1], [0]], 0.0), ([[0], [1]], 286.0)):
        loss = factor_loss(scores, torch.tensor(labels), "strict")
        assert loss.item() == pytest.approx(expected)
        assert torch.isfinite(torch.autograd.grad(loss, scores)[0]).all()


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores \(8, 3\) and labels \(8, 1\) are not of one shape"):
        factor_loss(some_scores(), LABELS[:, :1], "strict")


# Heat maps


def test_a_heat_map_is_the_weighted_sum_of_the_maps_stretched_to_0_and_1() -> None:
    maps = some_maps()[0]
    similarities = torch.linspace(-0.5, 0.9, C)
    for keep, weights in ((False, similarities.clamp(min=0)), (True, similarities)):
        expected = sum(float(weight) * one.numpy() for weight, one in zip(weights, maps, strict=True))
        np.testing.assert_allclose(weighted_map(maps, similarities, keep_negative=keep), expected, atol=1e-5)
        expected = (expected - expected.min()) / (expected.max() - expected.min())
        found = heat_map(maps, similarities, MAP_SIZE, keep_negative=keep)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_channel_that_speaks_against_the_attribute_does_not_move_the_maximum() -> None:
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 1], maps[0, 3, 3] = 1.0, 0.9
    maps[1, 1, 1] = 0.5
    similarities = torch.tensor([0.9, -0.9])
    peaks = [
        np.unravel_index(heat_map(maps, similarities, (4, 4), keep_negative=keep).argmax(), (4, 4))
        for keep in (False, True)
    ]
    assert peaks == [(1, 1), (3, 3)]


def test_a_heat_map_without_contrast_is_0() -> None:
    for maps, similarity in ((torch.ones(1, 3, 3), 0.5), (some_maps()[0, :1], -0.5)):
        assert not heat_map(maps, torch.tensor([similarity]), (6, 6)).any()


# Maps


def test_pooling_averages_squares_of_cells() -> None:
    maps = torch.rand(2, 3, 6, 4)
    torch.testing.assert_close(pool_maps(maps, 2), F.avg_pool2d(maps, 2))
    torch.testing.assert_close(pool_maps(maps, 1), maps)


def test_pooling_cells_that_do_not_divide_leaves_none_out_and_keeps_the_image_evenly_shared() -> None:
    maps = torch.arange(29.0).expand(1, 1, 2, 29)
    pooled = pool_maps(maps, 2)
    assert pooled.shape == (1, 1, 1, 15)
    centres = (torch.arange(15) + 0.5) * 29 / 15 - 0.5
    assert (pooled[0, 0, 0] - centres).abs().max() <= 0.5


# Texts


def test_an_attribute_is_the_normalised_mean_of_its_sentences() -> None:
    def encode(texts: list[str]) -> Tensor:
        return F.normalize(torch.tensor([[float(len(text)), 1.0] for text in texts]), dim=1)

    sentences = [["a"], ["b" * number for number in range(1, 600)]]
    found = embed_attributes(encode, sentences)
    for row, of_attribute in zip(found, sentences, strict=True):
        mean = encode(of_attribute).mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm())
    with pytest.raises(
        ConfigError, match="attribute number 2 of 2 has no sentence that speaks of it; give its prompts"
    ):
        embed_attributes(encode, [["a"], []])


def test_the_grammar_has_sentences_for_every_finding() -> None:
    grammar = PromptGrammar()
    for finding in FINDINGS:
        for value in (0, 1):
            sentences = grammar_sentences(finding, 8, seed=1, value=value)
            assert len(sentences) == 8
            assert {grammar.parse(sentence).value for sentence in sentences} == {value}
    assert len(grammar_sentences("density", 2, seed=0, value=3)) == 2
    with pytest.raises(ConfigError, match="no prompt says that 'mass' is 2; the values are 0 to 1"):
        grammar_sentences("mass", 2, seed=0, value=2)
    with pytest.raises(ConfigError, match="No zero-shot prompts exist"):
        grammar_sentences("age", 2, seed=0)


def test_sentences_of_reports_are_those_that_state_the_attribute() -> None:
    told = [
        "there is a mass in the left breast .",
        "no mass or calcification is seen .",
        "there is a mass in the left breast .",
        "skin thickening is noted .",
        "the breasts are extremely dense .",
    ]
    assert report_sentences(told, "mass") == [told[0]]
    assert report_sentences(told, "mass", 0) == [told[1]]
    assert report_sentences(told, "skin_thickening") == [told[3]]
    assert report_sentences(told, "density", 3) == [told[4]]
    assert report_sentences(told, "asymmetry") == []
