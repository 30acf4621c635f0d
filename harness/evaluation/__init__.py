"""Evaluation: which cells are missing, what they cost, and how they are scored."""
