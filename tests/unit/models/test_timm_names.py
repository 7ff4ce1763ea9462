"""timm's EfficientNets are the same networks: with their weights ours computes what timm computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mammoclip.errors import ModelError
from mammoclip.models.image_encoder import load_image_encoder

SIDES = {"efficientnet-lite0": 224, "efficientnet-b2": 260}  # the sizes for which static padding is the dynamic one


def save_timm(name: str, path: Path) -> torch.nn.Module:
    """A random timm model whose batch norms do something, and its file."""
    torch.manual_seed(5)
    model = timm.create_model(name.replace("efficientnet-", "tf_efficientnet_")).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    save_file(model.state_dict(), path)
    return model


@pytest.mark.parametrize("name", SIDES)
def test_weights_in_the_names_of_timm_give_the_features_of_timm(tmp_path: Path, name: str) -> None:
    model = save_timm(name, tmp_path / "timm.safetensors")
    encoder = load_image_encoder(name, tmp_path / "timm.safetensors").eval()
    grey = torch.randn(2, 1, SIDES[name], SIDES[name])
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(grey.expand(-1, 3, -1, -1)), pre_logits=True)
        torch.testing.assert_close(encoder(grey), expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_timm("efficientnet-lite0", tmp_path / "timm.safetensors")
    with pytest.raises(ModelError, match=r"do not fit the model: .* check which model they are of"):
        load_image_encoder("efficientnet-b2", tmp_path / "timm.safetensors")
