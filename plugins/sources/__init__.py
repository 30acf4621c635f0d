"""Sources: build tasks on demand from the files of other projects."""
