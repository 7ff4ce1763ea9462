"""Report text and prompts: sections, sides, facts, cleaning, prompt grammar. Strings in, strings out; no files."""

from mammoclip.text.paraphrase import PARAPHRASE_RULES_VERSION, paraphrases
from mammoclip.text.prompts.grammar import Statement
from mammoclip.text.prompts.prompt_grammar import FINDINGS, NO_FINDING, PromptGrammar
from mammoclip.text.prompts.zero_shot import DENSITY_PROMPTS, prompt_ensemble, zero_shot_prompts
from mammoclip.text.reports.cleaning import Mode, clean_section, clean_sentences, normalise_birads
from mammoclip.text.reports.facts import Fact, report_facts, side_facts
from mammoclip.text.reports.sections import Laterality, side_text, split_report
from mammoclip.text.reports.sentences import split_sentences, to_plain_unicode

__all__ = [
    "DENSITY_PROMPTS",
    "FINDINGS",
    "NO_FINDING",
    "PARAPHRASE_RULES_VERSION",
    "Fact",
    "Laterality",
    "Mode",
    "PromptGrammar",
    "Statement",
    "clean_section",
    "clean_sentences",
    "normalise_birads",
    "paraphrases",
    "prompt_ensemble",
    "report_facts",
    "side_facts",
    "side_text",
    "split_report",
    "split_sentences",
    "to_plain_unicode",
    "zero_shot_prompts",
]
