"""JPEG 2000 on a GPU through nvImageCodec, an optional extra (``pip install 'mammoclip[gpu-decoder]'``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mammoclip.errors import ConfigError


@cache
def gpu_decoder() -> Callable[[bytes], npt.NDArray[Any]]:
    """Return a function that decodes one JPEG 2000 or HTJ2K frame of one component, height x width, as stored.

    Raises:
        ConfigError: if the extra is not installed or there is no GPU.
    """
    try:
        from nvidia import nvimgcodec  # noqa: PLC0415  (an optional extra)
    except ImportError:
        raise ConfigError(
            "shard.decoder: gpu needs nvImageCodec; pip install 'mammoclip[gpu-decoder]', or set decoder: cpu"
        ) from None
    try:
        decoder = nvimgcodec.Decoder()
    except RuntimeError as error:
        raise ConfigError(f"shard.decoder: gpu found no usable GPU ({error}); set decoder: cpu") from None
    # As stored: no scaling to 8 bits, no conversion to RGB.
    parameters = nvimgcodec.DecodeParams(allow_any_depth=True, color_spec=nvimgcodec.ColorSpec.UNCHANGED)

    def decode(frame: bytes) -> npt.NDArray[Any]:
        image = decoder.decode(nvimgcodec.CodeStream(frame), params=parameters)
        if image is None:
            raise ValueError("nvImageCodec cannot decode the frame")
        return np.array(image.cpu()).squeeze(axis=-1)

    return decode
