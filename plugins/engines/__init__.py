"""Engines, which load checkpoints and score or sample with them."""
