"""Executors: run the cells of a sweep in several processes."""
