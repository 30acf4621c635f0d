"""The store: records, samples, identity of a cell, points and subsets."""
