"""Results of others become points and records of a store."""
