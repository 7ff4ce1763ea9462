"""Stage ``tabulate``, second part: other wordings of the sentences of one data set's reports."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from mammoclip.artifacts import PARAPHRASES, REPORTS, read_table, write_table
from mammoclip.config import ParaphraseSection, resolve_source
from mammoclip.data.paraphrase import paraphrase_texts
from mammoclip.text import PARAPHRASE_RULES_VERSION, paraphrases
from pipelines.command import run_stage, section_argument

log = logging.getLogger("mammoclip.paraphrase")

Paraphrase = Callable[[list[str]], Sequence[list[str]]]


def run(arguments: argparse.Namespace) -> None:
    """Write the table; the cache stays, for another run or another data set."""
    section: ParaphraseSection = arguments.config
    table = PARAPHRASES.empty()
    if section.method != "none":
        sentences = read_table(REPORTS, arguments.reports)["sentences"].explode().drop_nulls().to_list()
        paraphrase, key = _method(section, arguments.seed)
        table = paraphrase_texts(sentences, paraphrase, key, arguments.cache, section.batch_size)
    found = table["paraphrases"].list.len() > 0
    log.info("paraphrase: %d of %d sentences have another wording", found.sum(), len(table))
    write_table(table, PARAPHRASES, arguments.out)


def _method(section: ParaphraseSection, seed: int) -> tuple[Paraphrase, str]:
    """Return the function, and what its results depend on."""
    count = section.num_paraphrases
    if section.method == "rules":
        return (
            lambda batch: [paraphrases(text, count, seed) for text in batch],
            f"rules {PARAPHRASE_RULES_VERSION} {count} {seed}",
        )
    from mammoclip.models.back_translation import BackTranslator  # noqa: PLC0415  (seconds to import)

    translator = BackTranslator(
        resolve_source(section.forward),
        resolve_source(section.backward),
        paraphrases_per_text=count,
        num_beams=section.num_beams,
        temperature=section.temperature,
        seed=seed,
        device=section.device,
    )
    return translator.paraphrase, translator.identity


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=section_argument(ParaphraseSection), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--reports", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder of what was paraphrased before")
    parser.add_argument("--out", type=Path, required=True)
    run_stage(parser, run)
