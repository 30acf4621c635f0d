"""Laws and fits: from points to predictions with intervals."""
