"""Sentences about labels: a grammar over the BI-RADS lexicon, its parser, and the prompts of zero-shot tasks."""
