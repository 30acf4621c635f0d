"""Checkers: whether a generated text holds the answer."""
