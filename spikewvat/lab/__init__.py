"""The laboratory: what repeats the paper and measures methods against each other."""
