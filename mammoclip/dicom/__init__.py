"""DICOM mammograms to cropped PNGs: arrays in, arrays out."""

from mammoclip.dicom.geometry import CropBox, Placement
from mammoclip.dicom.header import MammogramHeader, read_header
from mammoclip.dicom.pixels import Mammogram, read_mammogram
from mammoclip.dicom.recipe import (
    Converted,
    Recipe,
    convert,
    convert_file,
    convert_or_reject,
    find_breast,
    to_png_array,
)

__all__ = [
    "Converted",
    "CropBox",
    "Mammogram",
    "MammogramHeader",
    "Placement",
    "Recipe",
    "convert",
    "convert_file",
    "convert_or_reject",
    "find_breast",
    "read_header",
    "read_mammogram",
    "to_png_array",
]
