"""Paraphrases of many texts, each computed once: what was found is kept on disk, batch by batch."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from mammoclip.artifacts import write_text
from mammoclip.data.progress import report_progress

log = logging.getLogger(__name__)

Paraphrase = Callable[[list[str]], Sequence[list[str]]]
"""A batch of texts to the paraphrases of each, in their order."""


def paraphrase_texts(
    texts: Iterable[str], paraphrase: Paraphrase, key: str, cache: Path, batch_size: int
) -> pl.DataFrame:
    """Paraphrase every distinct text, and keep each finished batch in ``cache``.

    An interrupted job goes on after its last finished batch; a text that was paraphrased under the same ``key`` is not
    paraphrased again, whatever other texts there were. A cache file that is damaged is deleted, and its texts are
    paraphrased again.

    Args:
        texts: in any order, with repeats.
        paraphrase: the method. Its result for a text should not depend on the others of the batch: batches differ
            between a job that was interrupted and one that was not.
        key: identity of the method (models, settings, seed); another key finds nothing of this one's.
        cache: a folder, made if need be; methods may share it.
        batch_size: texts that ``paraphrase`` gets at a time, and the most that a kill can lose.

    Returns:
        Columns ``text``, sorted, and ``paraphrases``, a list that may be empty.

    >>> from tempfile import mkdtemp
    >>> def shout(batch: list[str]) -> list[list[str]]:
    ...     return [[text.upper()] for text in batch]
    >>> paraphrase_texts(["no mass", "a mass", "no mass"], shout, "shout-1", Path(mkdtemp()), batch_size=8).rows()
    [('a mass', ['A MASS']), ('no mass', ['NO MASS'])]
    """
    entries = {text: _entry(text, key) for text in sorted(set(texts))}
    found = _read(cache)
    missing = [text for text, entry in entries.items() if entry not in found]
    for entry, paraphrases in report_progress(
        _compute(missing, paraphrase, entries, cache, batch_size), len(missing), "paraphrase: texts"
    ):
        found[entry] = paraphrases
    return pl.DataFrame(
        {"text": list(entries), "paraphrases": [found[entry] for entry in entries.values()]},
        schema={"text": pl.String, "paraphrases": pl.List(pl.String)},
    )


def _entry(text: str, key: str) -> str:
    return hashlib.sha256(json.dumps([key, text]).encode()).hexdigest()


def _compute(
    texts: list[str], paraphrase: Paraphrase, entries: dict[str, str], cache: Path, batch_size: int
) -> Iterator[tuple[str, list[str]]]:
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        results = {entries[text]: found for text, found in zip(batch, paraphrase(batch), strict=True)}
        content = json.dumps(results)
        write_text(content, cache / f"{_checksum(content.encode())}.json")
        yield from results.items()


def _read(cache: Path) -> dict[str, list[str]]:
    """Return all entries of the files whose content is what their name, its checksum, says."""
    found: dict[str, list[str]] = {}
    for path in sorted(cache.glob("*.json")):
        content = path.read_bytes()
        if _checksum(content) == path.stem:
            found |= json.loads(content)
        else:
            log.warning("%s is damaged and was deleted; its texts are paraphrased again", path)
            path.unlink()
    return found


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
