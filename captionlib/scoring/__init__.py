"""Scores beyond chapter 07: confidence intervals, rewards, METEOR."""
