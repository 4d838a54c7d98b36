"""Networks of the paper, by name."""
