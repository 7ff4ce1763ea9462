"""Evaluation: features, zero-shot, probes, retrieval; metrics and statistics are pure functions on arrays."""
