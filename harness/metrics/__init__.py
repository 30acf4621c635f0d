"""Scores and samples of a cell as arrays; metrics aggregated with standard errors."""
