"""Free-text reports: sections, sides, sentences, cleaning, and the facts that they state. No files."""
