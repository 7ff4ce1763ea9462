"""DICOM mammograms to 8-bit crops: arrays in, arrays out."""

from mammoclip.dicom.crop import find_breast, to_png_array
from mammoclip.dicom.geometry import CropBox, boxes_to_crop, boxes_to_crop_compat, boxes_to_image
from mammoclip.dicom.header import MammogramHeader, read_header
from mammoclip.dicom.pixels import Mammogram, read_mammogram

__all__ = [
    "CropBox",
    "Mammogram",
    "MammogramHeader",
    "boxes_to_crop",
    "boxes_to_crop_compat",
    "boxes_to_image",
    "find_breast",
    "read_header",
    "read_mammogram",
    "to_png_array",
]
