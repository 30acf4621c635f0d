"""Forecasts: one calibrated predictive distribution per task and family, composed of models and laws."""
