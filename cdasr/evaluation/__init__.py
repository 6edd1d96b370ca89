"""Evaluation: decode a manifest with several systems, count word errors, and say how sure the numbers are."""
