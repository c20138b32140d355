"""Diagrams and interactive views for the chapters."""
