"""Experiments whose results the book prints: `python -m tools.experiments`."""
