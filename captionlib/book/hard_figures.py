"""Figures of chapter 13: the variance of the gradient's estimates."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt

from captionlib.book.style import PALETTE

__all__ = ["variance_figure"]


def variance_figure(variance: Mapping[str, float]) -> None:
    """Bars in per cent of the first."""
    names, values = zip(*variance.items(), strict=True)
    shares = [100 * float(value) / float(values[0]) for value in values]
    _, axes = plt.subplots(figsize=(4.8, 1.9), layout="constrained")
    bars = axes.barh(names, shares, color=PALETTE["attention"], height=0.6)
    axes.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=4)
    axes.invert_yaxis()
    axes.set(xlim=(0, 115), xlabel="variance, % of that without a baseline")
