"""Mammo-CLIP as a system: from raw DICOM to shards, pretraining, evaluation and the tables of the paper."""

__version__ = "0.1.0"
