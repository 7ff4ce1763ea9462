"""Back-translation with two tiny Marian models that know four sentences; everything from files to text is real."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mammoclip.errors import ModelError
from mammoclip.models.back_translation import BackTranslator
from mammoclip.text import clean_sentences

from .marian import write_marian

TO_ITALIAN = (
    ("no mass is seen", "nessuna massa visibile"),
    ("there is a mass in the left breast", "massa nel seno sinistro"),
    ("there is no suspicious calcification", "nessuna calcificazione sospetta"),
    ("the breasts are dense", "i seni sono densi"),
)
TO_ENGLISH = (
    ("nessuna massa visibile", "No mass is visible."),
    ("massa nel seno sinistro", "Mass in the left breast."),
    ("nessuna calcificazione sospetta", "No suspicious calcification."),
    ("i seni sono densi", "the breasts are dense"),
)
TEXTS = [text for text, _ in TO_ITALIAN]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("marian")
    return write_marian(folder / "en-it", TO_ITALIAN), write_marian(folder / "it-en", TO_ENGLISH)


@pytest.fixture
def copy(models: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first model, to be damaged."""
    return Path(shutil.copytree(models[0], tmp_path / "copy"))


def cautious(models: tuple[Path, Path], **settings: Any) -> BackTranslator:
    return BackTranslator(*models, **{"temperature": 0.1, **settings})


def wild(models: tuple[Path, Path], **settings: Any) -> BackTranslator:
    return BackTranslator(*models, **{"temperature": 3.0, "paraphrases_per_text": 3, **settings})


def test_a_text_comes_back_in_other_words_cleaned_and_an_unchanged_one_not_at_all(models: tuple[Path, Path]) -> None:
    assert cautious(models, paraphrases_per_text=2).paraphrase(TEXTS) == [
        ["no mass is visible"],
        ["mass in the left breast"],
        ["no suspicious calcification"],
        [],
    ]


def test_no_text_has_no_paraphrase(models: tuple[Path, Path]) -> None:
    assert cautious(models).paraphrase([]) == []


def test_several_paraphrases_are_distinct_clean_and_extend_fewer(models: tuple[Path, Path]) -> None:
    six = wild(models, paraphrases_per_text=6).paraphrase(TEXTS)
    assert max(map(len, six)) > 2
    for text, paraphrases, fewer in zip(TEXTS, six, wild(models).paraphrase(TEXTS), strict=True):
        assert len({text, *paraphrases}) == len(paraphrases) + 1
        assert paraphrases[: len(fewer)] == fewer
        for paraphrase in paraphrases:
            assert " ".join(clean_sentences(paraphrase)) == paraphrase


def test_a_result_depends_on_text_and_seed_and_not_on_the_texts_beside_it(models: tuple[Path, Path]) -> None:
    translator = wild(models)
    together = translator.paraphrase(TEXTS)
    torch.manual_seed(7)  # the global stream is not used
    assert [translator.paraphrase([text])[0] for text in TEXTS] == together
    assert translator.paraphrase(TEXTS[::-1]) == together[::-1]
    assert wild(models, seed=1).paraphrase(TEXTS) != together


def test_the_global_random_stream_is_left_alone(models: tuple[Path, Path]) -> None:
    translator = wild(models)
    before = torch.get_rng_state()
    translator.paraphrase(TEXTS[:1])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_identity_follows_contents_and_settings_not_places(models: tuple[Path, Path], copy: Path) -> None:
    identity = cautious(models).identity
    assert cautious((copy, models[1])).identity == identity
    (copy / "README.md").write_text("of no consequence")
    assert cautious((copy, models[1])).identity == identity
    others = [
        cautious((models[1], models[0])),
        cautious(models, seed=1),
        cautious(models, num_beams=2),
        cautious(models, temperature=0.2),
        cautious(models, paraphrases_per_text=2),
    ]
    weights = load_file(copy / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    others.append(cautious((copy, models[1])))
    assert len({identity, *(other.identity for other in others)}) == 7


def test_a_model_of_the_hubs_cache_is_the_same_as_its_folder(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--en-it"
    shutil.copytree(models[0], repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert cautious(("somebody/en-it", models[1])).identity == cautious(models).identity


def test_a_model_that_is_nowhere_is_named(models: tuple[Path, Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="'nobody/no-such-model' is neither a folder nor a model of the Hugging Face"):
        BackTranslator(models[0], "nobody/no-such-model")
    with pytest.raises(ModelError, match="is neither a folder"):
        BackTranslator(tmp_path / "missing", models[1])


@pytest.mark.parametrize("name", ["config.json", "source.spm", "target.spm", "vocab.json"])
def test_an_incomplete_folder_says_what_it_lacks(models: tuple[Path, Path], copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name};"):
        BackTranslator(copy, models[1])


def test_a_folder_without_weights_says_so(models: tuple[Path, Path], copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model\.safetensors or pytorch_model\.bin"):
        BackTranslator(copy, models[1])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "source.spm", "vocab.json"])
def test_a_damaged_file_is_an_error_that_names_the_folder(models: tuple[Path, Path], copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match=f"{copy} cannot be read"):
        BackTranslator(copy, models[1])


def test_weights_of_another_model_are_refused(models: tuple[Path, Path], copy: Path) -> None:
    save_file({"some.weight": torch.zeros(2)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="are not those of a Marian model"):
        BackTranslator(copy, models[1])


def test_old_weights_of_torch_are_read_and_hostile_ones_run_nothing(models: tuple[Path, Path], copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    assert cautious((copy, models[1])).paraphrase(TEXTS) == cautious(models).paraphrase(TEXTS)

    torch.save({**state, "trap": _Trap(copy / "sprung")}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be read"):
        BackTranslator(copy, models[1])
    assert not (copy / "sprung").exists()


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_without_sentencepiece_the_missing_package_is_named(
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mammoclip.models.back_translation.is_sentencepiece_available", lambda: False)
    with pytest.raises(ModelError, match="pip install sentencepiece"):
        BackTranslator(*models)
