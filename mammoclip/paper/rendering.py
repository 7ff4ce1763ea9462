"""Figures to files: vector and raster, the same bytes for the same numbers, in any process."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mammoclip.artifacts import atomic_path

_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
}
_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "png": {"Software": None},
}
PNG_DPI = 160
_PHOTOGRAPH_QUALITY, _LOSSLESS = 85, 101  # of WebP, as OpenCV has them


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw with our style and matplotlib's own defaults, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def render_figure(figure: Figure, file_format: str) -> bytes:
    """Return a figure as pdf or png, without dates or versions."""
    buffer = io.BytesIO()
    with figure_style():
        figure.savefig(buffer, format=file_format, dpi=PNG_DPI, metadata=_METADATA[file_format])
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> bytes:
    """Write a figure atomically in the format of the suffix, pdf or png; return what was written."""
    content = render_figure(figure, path.suffix.removeprefix("."))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return content


def save_as_pdf_and_png(figure: Figure, path: Path, *, is_photograph: bool = False) -> str:
    """Write a figure to a path without suffix, as raster and as vector; return the raster as ``webp_uri`` has it."""
    png = save_figure(figure, path.with_name(f"{path.name}.png"))
    figure.set_layout_engine("none")  # found once, which takes as long as the drawing
    save_figure(figure, path.with_name(f"{path.name}.pdf"))
    return webp_uri(png, is_photograph=is_photograph)


def webp_uri(png: bytes, *, is_photograph: bool = False) -> str:
    """Return a picture as a data URI of WebP, which is smaller: lines and text without loss, photographs nearly so."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    quality = _PHOTOGRAPH_QUALITY if is_photograph else _LOSSLESS
    return data_uri(cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes(), "image/webp")


def data_uri(content: bytes, media_type: str) -> str:
    """Return ``content`` as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
