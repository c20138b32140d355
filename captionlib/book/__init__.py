"""Diagrams and interactive views in the chapters."""
