"""Every error that a user is meant to read.

A ``MammoClipError`` carries one sentence: what is wrong, where, what was expected and what to do.
Commands print that sentence and exit with 1; anything else that is raised is a bug and shows its traceback in the log.
"""

from __future__ import annotations


class MammoClipError(Exception):
    """Base of all errors whose message is written for people."""


class ConfigError(MammoClipError):
    """The configuration has an unknown key, a wrong type or an impossible value."""


class DatasetError(MammoClipError):
    """A data set's folder or table is not laid out as its adapter expects."""


class ArtifactError(MammoClipError):
    """A file on disk is not the artifact it should be (missing, outdated, wrong column)."""


class ModelError(MammoClipError):
    """A model or its weights cannot be built or loaded."""


class Interrupted(MammoClipError):
    """The work was asked to stop and has kept what was done; the same command goes on from there."""

    EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again


class RejectedInput(MammoClipError):
    """One input cannot be used; the stage counts it and goes on.

    ``reason`` is one of ``artifacts.REJECT_REASONS``; ``detail`` is a sentence without patient identifiers.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Take one of ``artifacts.REJECT_REASONS`` and a sentence."""
        super().__init__(reason, detail)  # both, so that pickling between processes keeps them
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Return ``reason: detail``."""
        return f"{self.reason}: {self.detail}"
