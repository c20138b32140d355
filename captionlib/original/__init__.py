"""Read the original tutorial's checkpoints without running any of their
code."""
