"""Import published results as points and records of a store."""
