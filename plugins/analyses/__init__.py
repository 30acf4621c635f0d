"""Analyses: what a store or a table of points says about scaling, beside laws."""
