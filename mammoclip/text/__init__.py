"""Report text and prompts: sections, sides, cleaning and the prompt grammar. Strings in, strings out; no files."""

from mammoclip.text.cleaning import Mode, clean_section, clean_sentences, normalise_birads
from mammoclip.text.prompts import (
    DENSITY_PROMPTS,
    FINDINGS,
    NO_FINDING,
    FindingRule,
    PromptGrammar,
    prompt_ensemble,
    zero_shot_prompts,
)
from mammoclip.text.sections import Laterality, side_text, split_report
from mammoclip.text.sentences import split_sentences, to_plain_unicode

__all__ = [
    "DENSITY_PROMPTS",
    "FINDINGS",
    "NO_FINDING",
    "FindingRule",
    "Laterality",
    "Mode",
    "PromptGrammar",
    "clean_section",
    "clean_sentences",
    "normalise_birads",
    "prompt_ensemble",
    "side_text",
    "split_report",
    "split_sentences",
    "to_plain_unicode",
    "zero_shot_prompts",
]
