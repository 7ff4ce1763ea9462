"""Where in an image a text is: maps of relevance over the cells of the image encoder's last maps.

Shapes: B images, C channels, h and w cells of a map, K texts, D embedding, H and W pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from mammoclip.errors import ModelError
from mammoclip.models.clip import MammoClip
from mammoclip.models.image_encoder import ImageEncoder
from mammoclip.models.timm_encoder import TimmEncoder


def last_maps(encoder: ImageEncoder, images: Tensor) -> Tensor:
    """Return the last maps (B, C, h, w) of normalised images (B, 1, H, W).

    Of our EfficientNets they are the head's, whose mean the pooled features are; of timm's models the last of ``maps``.
    """
    maps: Tensor = encoder.maps(images)[-1] if isinstance(encoder, TimmEncoder) else encoder.forward_features(images)
    return maps


@torch.no_grad()
def similarity_map(model: MammoClip, maps: Tensor, text: Tensor) -> Tensor:
    """Return the cosine similarity (B, h, w) of every cell with a text, float32 in [-1, 1].

    A cell is projected as if it were the whole image's pooled features.

    Args:
        model: in evaluation mode.
        maps: last maps (B, C, h, w), of any type, on any device.
        text: L2-normalised embedding, D.

    Raises:
        ModelError: the maps are not as wide as the pooled features.
    """
    cells = _at(model, maps).movedim(1, -1)
    return (model.project_image(cells) @ _at(model, text)).float()


def gradient_map(model: MammoClip, maps: Tensor, texts: Tensor) -> Tensor:
    """Return Grad-CAM (B, K, h, w) of the similarities of images with texts, float32, 0 or more, without a gradient.

    Selvaraju et al., ICCV 2017: the maps weighted by the mean over the cells of the derivative of the cosine similarity
    of the image's and the text's embedding with respect to them; what is negative becomes 0. The encoder is taken to
    pool by the mean of its last maps, so that it need not run. Our EfficientNets do, and the map is exact. Of timm's
    models those do that pool by the mean and have no layer after; a transformer that pools by its class token or by
    attention does not, and its map is that of an image embedding made of the mean of its patches.

    Args:
        model: in evaluation mode; its gradients are left alone.
        maps: last maps (B, C, h, w), of any type, on any device; under ``no_grad`` or ``inference_mode`` too.
        texts: L2-normalised embeddings, K x D.

    Raises:
        ModelError: the maps are not as wide as the pooled features.
    """
    with torch.inference_mode(False), torch.no_grad():
        # Copies: what was made in inference mode takes part in no gradient.
        maps, texts = _at(model, maps).clone(), _at(model, texts).clone()
        pooled = maps.mean(dim=(2, 3))
        for_each_text = pooled[:, None].repeat(1, len(texts), 1).requires_grad_()
        with torch.enable_grad():
            similarities = (model.project_image(for_each_text) * texts).sum()
            (slopes,) = torch.autograd.grad(similarities, for_each_text)
        weights = slopes / maps[0, 0].numel()  # every cell has this part in the mean, and so the same derivative
        return torch.einsum("bkc,bchw->bkhw", weights, maps).relu().float()


def enlarge_map(cells: Tensor, size_px: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return maps (..., h, w) at the size of their image, float32 (..., H, W), each stretched to [0, 1].

    They are resized bilinearly, the cells sharing the image evenly. One without contrast is 0 everywhere. What comes
    out therefore compares places of one image, not images.

    Args:
        cells: of any type, on any device.
        size_px: (height, width) of the image.
    """
    flat = cells.detach().float().reshape(-1, 1, *cells.shape[-2:])
    heat = F.interpolate(flat, size_px, mode="bilinear", align_corners=False)
    heat = heat - heat.amin(dim=(2, 3), keepdim=True)
    highest = heat.amax(dim=(2, 3), keepdim=True)
    stretched = heat / torch.where(highest > 0, highest, 1.0)
    return np.asarray(stretched.reshape(*cells.shape[:-2], *size_px).cpu().numpy(), np.float32)


def _at(clip: MammoClip, numbers: Tensor) -> Tensor:
    """Maps (B, C, h, w) or embeddings on the device and of the type of the model; maps are checked."""
    if numbers.ndim == 4 and numbers.shape[1] != clip.image_encoder.num_features:
        raise ModelError(
            f"the last maps of {clip.image_encoder.name} have {numbers.shape[1]} channels and its pooled features "
            f"{clip.image_encoder.num_features}, so that texts cannot be held against its maps; take an encoder that "
            "only pools its last maps"
        )
    return numbers.to(clip.logit_scale.device, clip.logit_scale.dtype)
