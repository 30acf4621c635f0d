"""Tables that compare families, checkpoints and laws."""
