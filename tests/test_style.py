"""The book's figures can be read on light and on dark pages."""

import io

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from captionlib.book.diagrams import box, canvas
from captionlib.book.style import PAGES, PALETTE, TINT, use_style


def luminance(colour):
    """As the Web Content Accessibility Guidelines define it."""
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in to_rgb(colour)
    ]
    return sum(
        s * c for s, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", PALETTE)
def test_colours_stand_out_on_both_pages(kind):
    assert all(contrast(PALETTE[kind], page) >= 4.2 for page in PAGES)
    assert contrast("#1a1a1a", TINT[kind]) >= 7  # what a box says


def corner(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return Image.open(file).convert("RGBA").getpixel((2, 2))


def test_figures_are_transparent():
    with plt.rc_context():
        use_style()
        figure, axes = plt.subplots()
        axes.plot([1, 2])
        assert corner(figure)[3] == 0
    axes = canvas(4, 2)
    box(axes, 2, 1, 1, 0.5, "box")
    assert corner(axes.figure)[3] == 0
