"""Phantom: a synthetic screening cohort in the layout of VinDr-Mammo, with reports, for tests and demonstrations."""

from mammoclip.datasets.phantom.cohort import generate_cohort

__all__ = ["generate_cohort"]
