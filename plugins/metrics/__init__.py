"""Metrics: compute one value per document from its scores or samples."""
