"""Checkpoints of the original tutorial, read without running anything in
them."""
