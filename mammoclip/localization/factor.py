"""Mammo-FActOR: which channel of a frozen image encoder speaks of an attribute, and where it lights up.

Mammo-CLIP (MICCAI 2024), section 2. Every channel of the encoder's last map is flattened and mapped by an MLP of the
attribute's own into the space of the texts; the channel that comes nearest to the attribute's sentences is the image's
score. Image labels are all that is needed. Shapes: B images, C channels, h and w cells of a map, P = h w, K attributes,
D embedding, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mammoclip.errors import ConfigError
from mammoclip.models.relevance import enlarge_map
from mammoclip.text import Mode, prompt_ensemble, report_facts

_SENTENCES_AT_A_TIME = 256
_SMALLEST_NORM = 1e-8


class MammoFactor(nn.Module):
    """An MLP (linear, ReLU, linear) from maps to texts for each of K attributes, drawn from torch's random state.

    The attributes share nothing, so training them together is training each alone. ``text_embeddings`` are a buffer:
    they are saved with the weights and not trained.
    """

    text_embeddings: Tensor

    def __init__(
        self, map_size: tuple[int, int], text_embeddings: Tensor, hidden: int = 512, temperature: float = 0.007
    ) -> None:
        """Make K mappings for maps of ``map_size`` cells, (h, w).

        Args:
            map_size: (h, w).
            text_embeddings: K x D, one an attribute; see ``embed_attributes``. They are L2-normalised here.
            hidden: units of the hidden layer; the paper does not say how many.
            temperature: divides the similarities in the loss (paper: 0.007; released notebook: 0.07).
        """
        super().__init__()
        num_attributes, embedding_dim = text_embeddings.shape
        cells = map_size[0] * map_size[1]
        self.map_size = map_size
        self.temperature = temperature
        self.register_buffer("text_embeddings", F.normalize(text_embeddings.detach().float(), dim=1))
        self.first_weight = _drawn((num_attributes, hidden, cells), cells)
        self.first_bias = _drawn((num_attributes, hidden), cells)
        self.second_weight = _drawn((num_attributes, embedding_dim, hidden), hidden)
        self.second_bias = _drawn((num_attributes, embedding_dim), hidden)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B, K) and cosine similarities of all channels (B, C, K) for maps (B, C, h, w) of any type.

        A score is the largest similarity of a channel divided by the temperature. Only scores carry a gradient. As the
        maximum passes it to a single channel, similarities are computed without one, attribute by attribute, and the
        chosen channels a second time with it: the memory of B C (hidden + D) numbers in place of K times as many that
        wait for the backward pass.
        """
        flat = maps.to(self.first_weight.dtype).flatten(2)
        similarities = self._similarities(flat)
        best, channels = similarities.max(dim=1)
        if torch.is_grad_enabled():
            images = torch.arange(len(flat), device=flat.device)
            chosen = flat[images[:, None], channels].transpose(0, 1)  # K, B, P
            hidden = torch.baddbmm(self.first_bias[:, None], chosen, self.first_weight.transpose(1, 2)).relu()
            mapped = torch.baddbmm(self.second_bias[:, None], hidden, self.second_weight.transpose(1, 2))
            best = _cosine(mapped, self.text_embeddings[:, :, None]).T
        return best / self.temperature, similarities

    @torch.no_grad()
    def similarities_to(self, maps: Tensor, attribute: int, text: Tensor) -> Tensor:
        """Return cosine similarities (B, C) of channels, mapped as those of one attribute, with a text of one's own.

        Args:
            maps: B x C x h x w, any type.
            attribute: its number, from 0.
            text: L2-normalised embedding, D, in the place of the attribute's own.
        """
        return self._similarities_to(maps.to(self.first_weight.dtype).flatten(2), attribute, text)

    @torch.no_grad()
    def _similarities(self, flat: Tensor) -> Tensor:
        """Cosine similarities (B, C, K) of flat maps (B, C, P)."""
        similarities = flat.new_empty(*flat.shape[:2], len(self.text_embeddings))
        for attribute, text in enumerate(self.text_embeddings):
            similarities[:, :, attribute] = self._similarities_to(flat, attribute, text)
        return similarities

    def _similarities_to(self, flat: Tensor, attribute: int, text: Tensor) -> Tensor:
        hidden = F.linear(flat, self.first_weight[attribute], self.first_bias[attribute]).relu_()
        mapped = F.linear(hidden, self.second_weight[attribute], self.second_bias[attribute])
        return _cosine(mapped, text[:, None])


def pool_maps(maps: Tensor, factor: int) -> Tensor:
    """Average maps (B, C, h, w) to (B, C, ceil(h / factor), ceil(w / factor)).

    Where ``factor`` does not divide the cells, windows overlap: all share the image evenly, as heat maps expect.
    """
    height, width = (-(-cells // factor) for cells in maps.shape[2:])
    return F.adaptive_avg_pool2d(maps, (height, width))


def factor_loss(scores: Tensor, labels: Tensor, mode: Mode) -> Tensor:
    """Return the mean over pairs of an attribute and an image that has it of -log(e^s / (e^s + sum of e^s')).

    s is the image's score for the attribute, s' run over the images of the batch without it. Without any pair the loss
    is 0, with gradient 0.

    Args:
        scores: B x K.
        labels: B x K: 1 the image has the attribute, 0 it has not, -1 unknown; an unknown one takes no part.
        mode: [quirk] ``compat``: the released form silences the images with the attribute by a score of 0, so that
            each of them, the image itself included, adds e^0 to the sum.

    Raises:
        ValueError: scores and labels are not of one shape.

    Example:
        One image with the attribute and one without, equal scores: half of the probability each.

        >>> loss = factor_loss(torch.zeros(2, 1), torch.tensor([[1], [0]]), "strict")
        >>> bool(torch.isclose(loss, torch.tensor(2.0).log()))
        True
    """
    if scores.shape != labels.shape:
        raise ValueError(f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} are not of one shape")
    has, unknown = labels == 1, labels < 0
    others = scores.masked_fill(has, 0.0 if mode == "compat" else -math.inf).masked_fill(unknown, -math.inf)
    terms = -F.logsigmoid(scores - torch.logsumexp(others, dim=0))  # e^s / (e^s + e^o) = sigmoid(s - o)
    return terms[has].sum() / max(1, int(has.sum()))


def weighted_map(maps: Tensor, similarities: Tensor, *, keep_negative: bool = False) -> Tensor:
    """Return where an attribute is seen: the similarity-weighted sum of the channels' maps, float32 (h, w).

    Channels of negative similarity are left out unless ``keep_negative``: what their embedding says is about the
    opposite of the attribute's sentences, and where they light up is no place that lacks it, so that subtracting them
    moves the maximum for reasons that have nothing to do with the attribute.

    Args:
        maps: C x h x w, any type.
        similarities: C, as ``MammoFactor`` returns for one image and attribute.
        keep_negative: the weighted sum of all channels, as the formula alone has it.
    """
    weights = similarities.float() if keep_negative else similarities.float().clamp(min=0)
    heat: Tensor = torch.tensordot(weights, maps.float(), dims=1)
    return heat


def heat_map(
    maps: Tensor, similarities: Tensor, size_px: tuple[int, int], *, keep_negative: bool = False
) -> npt.NDArray[np.float32]:
    """Return ``weighted_map`` at the size of the image, (height, width), in [0, 1]; see ``enlarge_map``."""
    return enlarge_map(weighted_map(maps, similarities, keep_negative=keep_negative), size_px)


def embed_attributes(encode_text: Callable[[Sequence[str]], Tensor], sentences: Sequence[Sequence[str]]) -> Tensor:
    """Return the text embeddings of attributes (K, D): the mean over an attribute's sentences, L2-normalised.

    Args:
        encode_text: gives L2-normalised embeddings of sentences, such as that of ``LoadedModel``.
        sentences: those of each attribute, from the prompt grammar, from reports or one's own.

    Raises:
        ConfigError: an attribute has no sentence.
    """
    rows = []
    for number, of_attribute in enumerate(sentences):
        if not of_attribute:
            raise ConfigError(
                f"attribute number {number + 1} of {len(sentences)} has no sentence that speaks of it; give its "
                "prompts, or leave it out"
            )
        starts = range(0, len(of_attribute), _SENTENCES_AT_A_TIME)
        parts = [encode_text(of_attribute[start : start + _SENTENCES_AT_A_TIME]) for start in starts]
        rows.append(F.normalize(torch.cat(parts).mean(dim=0), dim=0))
    return torch.stack(rows)


def grammar_sentences(attribute: str, size: int, seed: int, value: int = 1) -> tuple[str, ...]:
    """Return up to ``size`` sentences of the prompt grammar which say that ``attribute`` has ``value`` (1: present).

    Raises:
        ConfigError: the grammar does not speak of it.

    >>> grammar_sentences("mass", 1, seed=0)
    ('mass',)
    """
    classes = prompt_ensemble(attribute, size, seed)
    if not 0 <= value < len(classes):
        raise ConfigError(f"no prompt says that {attribute!r} is {value}; the values are 0 to {len(classes) - 1}")
    return classes[value]


def report_sentences(sentences: Iterable[str], attribute: str, value: int = 1) -> list[str]:
    """Return the sentences, each once, in which a report says that ``attribute`` has ``value`` (1: present).

    Sentences that deny or doubt it, or do not speak of it, are left out. Take those of training patients alone.

    Args:
        sentences: sentences of reports, such as those of the table ``reports``.
        attribute: as ``report_facts`` spells it: a finding in snake case, density or birads.
        value: what is to be said of it.

    >>> report_sentences(["no mass is seen .", "a mass in the left breast .", "fatty breasts ."], "mass")
    ['a mass in the left breast .']
    """
    return [
        sentence
        for sentence in dict.fromkeys(sentences)
        if any((fact.attribute, fact.value) == (attribute, value) for fact in report_facts({"FINDINGS": sentence}))
    ]


def _drawn(shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    """A parameter drawn as torch draws those of ``nn.Linear``: uniform within 1 / sqrt(fan-in)."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def _cosine(mapped: Tensor, text: Tensor) -> Tensor:
    """Cosine similarities (..., N) of mapped channels (..., N, D) with an L2-normalised text (..., D, 1)."""
    length: Tensor = torch.linalg.vector_norm(mapped, dim=-1)
    return (mapped @ text).squeeze(-1) / length.clamp_min(_SMALLEST_NORM)
