"""The model folder: format ``mammoclip-model``, version 1. It is self-contained and holds no pickle.

======================  ============================================================================================
``model.safetensors``   state dict of ``MammoClip`` (``image_encoder.*``, ``text_encoder.text_encoder.*``,
                        ``image_projection.projection.*``, ``text_projection.projection.*``, ``logit_scale``,
                        ``logit_bias`` of the sigmoid loss), with adapters of the text encoder merged into its weights
``config.json``         format, version, architecture of both encoders, ``embedding_dim``, ``projection`` (``linear``
                        where it is missing), ``sigmoid_loss`` (false where it is missing), image size and
                        normalisation, ``max_tokens``, free ``metadata``
``tokenizer/``          the tokenizer as transformers saves it
======================  ============================================================================================
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import save_file

from mammoclip.errors import ModelError
from mammoclip.models.clip import MammoClip
from mammoclip.models.efficientnet import fold_stem
from mammoclip.models.image_encoder import image_encoder_from_config
from mammoclip.models.inference import LoadedModel
from mammoclip.models.lora import merged_state
from mammoclip.models.preprocess import IMAGE_MEAN, IMAGE_STD
from mammoclip.models.text_encoder import load_tokenizer, text_encoder_from_config
from mammoclip.models.weights import load_into, read_weights

FORMAT = "mammoclip-model"
VERSION = 1
_NORMALISATION = {"scale": "min-max per image", "mean": IMAGE_MEAN, "std": IMAGE_STD}


def save_pretrained(
    model: MammoClip,
    tokenizer: Any,
    folder: str | Path,
    metadata: Mapping[str, Any],
    *,
    image_size_px: tuple[int, int],
) -> None:
    """Write the model folder, replacing an older one; ``folder`` never exists half-written.

    ``metadata`` is any JSON-ready mapping (data sets seen, mode, seed); ``image_size_px`` is (height, width).
    """
    folder = Path(folder)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "image_encoder": model.image_encoder.config,
        "text_encoder": model.text_encoder.config,
        "embedding_dim": model.embedding_dim,
        "projection": model.projection,
        "sigmoid_loss": model.logit_bias is not None,
        "image": {"height_px": image_size_px[0], "width_px": image_size_px[1], "normalisation": _NORMALISATION},
        "max_tokens": tokenizer.model_max_length,
        "metadata": dict(metadata),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new, old = staging / "new", staging / "old"
    try:
        new.mkdir()
        # Safetensors wants plain memory order; channels_last weights are not.
        state = {name: value.detach().cpu().contiguous() for name, value in merged_state(model).items()}
        save_file(state, new / "model.safetensors", metadata={"format": "pt"})
        (new / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        tokenizer.save_pretrained(str(new / "tokenizer"))
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(staging)


def load(path_or_hub_id: str | Path, device: str = "cpu", dtype: torch.dtype | None = None) -> LoadedModel:
    """Load a model folder, local or on the Hugging Face hub, in evaluation mode.

    ``dtype`` (default float32) is that of the weights and of the computation; embeddings are float32 in any case.
    Raises ``ModelError`` when the folder cannot be found, is of another format or version, or its weights do not fit
    its configuration.
    """
    folder = model_folder(path_or_hub_id)
    config = _read_config(folder)
    try:
        with torch.random.fork_rng(devices=[]):  # the random initialisation is overwritten at once
            model = MammoClip(
                image_encoder_from_config(config["image_encoder"]),
                text_encoder_from_config(config["text_encoder"]),
                config["embedding_dim"],
                config.get("projection", "linear"),
                config.get("sigmoid_loss", False),
            )
        image_size_px = (int(config["image"]["height_px"]), int(config["image"]["width_px"]))
        max_tokens, metadata = int(config["max_tokens"]), dict(config["metadata"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'config.json'} lacks {error}; save the model again") from error
    # Older folders hold the three-channel stem.
    state = fold_stem(read_weights(folder / "model.safetensors"), prefix="image_encoder.")
    load_into(model, state, source=str(folder))
    tokenizer = load_tokenizer(folder / "tokenizer", max_tokens)
    return LoadedModel(model.to(device=device, dtype=dtype).eval(), tokenizer, image_size_px, metadata)


def model_folder(path_or_hub_id: str | Path) -> Path:
    """Return the folder of a model, which is fetched from the Hugging Face hub if it is none here.

    Raises:
        ModelError: it is no folder and not found on the hub.
    """
    folder = Path(path_or_hub_id)
    if folder.is_dir():
        return folder
    try:
        return Path(
            snapshot_download(str(path_or_hub_id), allow_patterns=["config.json", "model.safetensors", "tokenizer/*"])
        )
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"no model at {str(path_or_hub_id)!r}: it is no folder here and not found on the Hugging Face hub; check "
            f"the name, or download the model folder and give its path ({type(error).__name__})"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is missing or no JSON; give a folder written by mammoclip") from error
    found = (config.get("format"), config.get("version")) if isinstance(config, dict) else None
    if found != (FORMAT, VERSION):
        raise ModelError(
            f"{path} has format and version {found}, expected {(FORMAT, VERSION)}; save or convert the model again"
        )
    return config
