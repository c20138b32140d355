"""Draw the toy world's sprites once, from the Noto Color Emoji font.

    python -m tools.sprites NotoColorEmoji.ttf

The font is in Debian's package `fonts-noto-color-emoji`. The pictures are in
git, so this needs to run again only if an object is added to the toy world.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SPRITES = Path(__file__).parent.parent / "captionlib" / "assets" / "sprites"
LONGEST_SIDE = 128  # pixels; the font holds bitmaps of 136 x 128
BITMAP_SIZE = 109  # the only size of the font's bitmaps

CHARACTERS = {
    "airplane": "🛩",
    "apple": "🍎",
    "ball": "⚽",
    "balloon": "🎈",
    "bicycle": "🚲",
    "boat": "⛵",
    "bus": "🚌",
    "butterfly": "🦋",
    "cactus": "🌵",
    "cake": "🎂",
    "camel": "🐫",
    "car": "🚗",
    "castle": "🏰",
    "cat": "🐈",
    "chair": "🪑",
    "cow": "🐄",
    "dancer": "💃",
    "dinosaur": "🦕",
    "dog": "🐕",
    "dolphin": "🐬",
    "duck": "🦆",
    "elephant": "🐘",
    "gift": "🎁",
    "giraffe": "🦒",
    "horse": "🐎",
    "house": "🏠",
    "kite": "🪁",
    "man": "🧍‍♂️",
    "mushroom": "🍄",
    "palm_tree": "🌴",
    "penguin": "🐧",
    "pig": "🐖",
    "rabbit": "🐇",
    "rocket": "🚀",
    "runner": "🏃",
    "sheep": "🐑",
    "snowman": "⛄",
    "sofa": "🛋",
    "sunflower": "🌻",
    "swan": "🦢",
    "teddy_bear": "🧸",
    "tent": "⛺",
    "tiger": "🐅",
    "train": "🚂",
    "tree": "🌳",
    "turtle": "🐢",
    "umbrella": "☂",
    "whale": "🐋",
    "woman": "🧍‍♀️",
}


def render(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """A glyph as RGBA, cropped, with a longest side of `LONGEST_SIDE`
    pixels."""
    size = 3 * LONGEST_SIDE, 2 * LONGEST_SIDE
    on_black = Image.new("RGB", size, "black")
    on_white = Image.new("RGB", size, "white")
    for canvas in (on_black, on_white):
        ImageDraw.Draw(canvas).text(
            (20, 20), character, font=font, embedded_color=True
        )
    # Text drawn on a transparent canvas gets dark edges. On black it is colour
    # x alpha, and on white it is brighter by 255 x (1 - alpha), so the two
    # together give colour and alpha without loss.
    black, white = (
        np.asarray(canvas, dtype=float) for canvas in (on_black, on_white)
    )
    alpha = 1 - (white - black).mean(axis=-1, keepdims=True) / 255
    colour = black / np.maximum(alpha, 1 / 255)
    glyph = Image.fromarray(
        np.concatenate([colour, 255 * alpha], axis=-1)
        .round()
        .clip(0, 255)
        .astype(np.uint8)
    )
    glyph = glyph.crop(
        glyph.getchannel("A").point(lambda value: 255 * (value > 24)).getbbox()
    )
    scale = LONGEST_SIDE / max(glyph.size)
    return glyph.resize(
        [round(scale * side) for side in glyph.size], Image.Resampling.LANCZOS
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("font", type=Path, help="NotoColorEmoji.ttf")
    font = ImageFont.truetype(parser.parse_args().font, BITMAP_SIZE)
    SPRITES.mkdir(parents=True, exist_ok=True)
    for name, character in CHARACTERS.items():
        picture = render(font, character).quantize(
            256, Image.Quantize.FASTOCTREE
        )
        picture.save(SPRITES / f"{name}.png", optimize=True)
    total = sum(file.stat().st_size for file in SPRITES.glob("*.png"))
    print(f"{len(CHARACTERS)} sprites, {total / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
