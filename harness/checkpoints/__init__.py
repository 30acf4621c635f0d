"""Checkpoints: families, weight files and training FLOPs."""
