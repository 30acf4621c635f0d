"""Checkers: decide whether a generated text contains the correct answer."""
