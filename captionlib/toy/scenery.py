"""The toy world's settings: a meadow, a beach, a room ..., painted with Pillow.

Every setting is made of the same few strokes: one colour fading into another, a
wavy line with everything below it filled, discs and rectangles. What varies
from picture to picture is drawn from a generator, in a fixed order: the same
seed always gives the same picture.
"""

from __future__ import annotations

import math
from random import Random

from PIL import Image, ImageColor, ImageDraw
from PIL.ImageDraw import ImageDraw as Brush

__all__ = ["CANVAS", "SETTINGS", "paint_setting"]

# Pixels along each side: twice a scene's, since halving smooths every edge.
CANVAS = 512


def paint_setting(setting: str, look: int) -> Image.Image:
    """Paint a setting without objects.

    Args:
        setting: a key of `SETTINGS`.
        look: seed of the hills, the clouds and the light.

    Returns:
        An RGB image, `CANVAS` pixels square; the same for the same arguments.
    """
    image = Image.new("RGB", (CANVAS, CANVAS))
    SETTINGS[setting](image, ImageDraw.Draw(image, "RGBA"), Random(look))
    return image


# The strokes


def _fade(
    image: Image.Image, top: int, bottom: int, start: str, end: str
) -> None:
    """Let one colour fade into another, from row `top` down to row `bottom`."""
    first, last = ImageColor.getrgb(start), ImageColor.getrgb(end)
    height = bottom - top
    strip = Image.new("RGB", (1, height))
    for row in range(height):
        share = row / height
        colour = (
            round(a + (b - a) * share) for a, b in zip(first, last, strict=True)
        )
        strip.putpixel((0, row), tuple(colour))
    image.paste(strip.resize((CANVAS, height)), (0, top))


def _wave(rng: Random) -> tuple[float, float]:
    """Choose where a wavy line starts, and how often it swings."""
    return rng.uniform(0, 6.3), rng.uniform(4, 9)


def _hills(
    draw: Brush,
    wave: tuple[float, float],
    level: float,
    swell: float,
    colour: str,
) -> None:
    """Fill everything below a wavy line around row `level`."""
    phase, bumps = wave
    ridge = [
        (x, level - swell * math.sin(phase + bumps * x / CANVAS))
        for x in range(0, CANVAS + 1, 8)
    ]
    draw.polygon([(0, CANVAS), *ridge, (CANVAS, CANVAS)], fill=colour)


def _disc(draw: Brush, x: float, y: float, radius: float, colour) -> None:
    """Fill a circle; `colour` may carry an opacity."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _glow(draw: Brush, x: float, y: float, radius: float, colour: str) -> None:
    """Draw a sun, a moon or a firefly, and the light around it."""
    faint = (*ImageColor.getrgb(colour), 11)
    for step in range(14, 0, -1):
        _disc(draw, x, y, radius * (1 + step / 9), faint)
    _disc(draw, x, y, radius, colour)


def _uniform(rng: Random, *ranges: tuple[float, float]) -> tuple[float, ...]:
    """Draw one number from each range."""
    return tuple(rng.uniform(low, high) for low, high in ranges)


# What several settings share


def _sky(image: Image.Image, draw: Brush, rng: Random) -> None:
    """Paint a noon, a morning or an evening, with its sun and clouds."""
    noon = "#5db7f0", "#e6f6fd", "#ffffff"
    morning = "#86cbf2", "#fff3d2", "#fffdf6"
    evening = "#93a2e2", "#ffd9c4", "#fff1eb"
    top, bottom, cloud = rng.choice((noon, morning, evening))
    _fade(image, 0, 360, top, bottom)
    _glow(draw, *_uniform(rng, (50, 460), (45, 110), (26, 36)), "#ffdf70")
    for _ in range(rng.randint(2, 4)):
        x, y, puff = _uniform(rng, (0, 512), (45, 190), (16, 32))
        _cloud(draw, x, y, puff, cloud)


def _cloud(draw: Brush, x: float, y: float, puff: float, colour: str) -> None:
    """Draw three puffs on a rounded base."""
    puffs = (-1.1, 0.1, 0.5), (-0.4, 0.45, 0.75), (0.5, 0.3, 0.65)
    for across, up, share in puffs:
        _disc(draw, x + across * puff, y - up * puff, share * puff, colour)
    base = x - 1.7 * puff, y - 0.2 * puff, x + 1.5 * puff, y + 0.5 * puff
    draw.rounded_rectangle(base, puff / 2, colour)


def _firs(
    draw: Brush, rng: Random, level: float, dark: str, light: str
) -> None:
    """Draw a distant row of firs with light on their tops."""
    for _ in range(rng.randint(7, 11)):
        x, y, tall = _uniform(rng, (0, 512), (level, level + 20), (34, 60))
        for step in range(3):
            foot, half = y - 0.26 * step * tall, tall * (0.32 - 0.06 * step)
            top = foot - tall * 0.48
            for share, colour in ((1, dark), (0.4, light)):
                edge = foot - tall * 0.48 * (1 - share)
                left, right = x - half * share, x + half * share
                draw.polygon([(left, edge), (right, edge), (x, top)], colour)


# The settings


def _meadow(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    _hills(draw, _wave(rng), 270, 26, "#b3dd93")
    _hills(draw, _wave(rng), 300, 20, "#9ad47a")
    _hills(draw, _wave(rng), 332, 10, "#86cb5f")
    _fade(image, 345, CANVAS, "#86cb5f", "#5fae42")
    for _ in range(40):
        x, y = _uniform(rng, (0, 512), (355, 508))
        for lean in (-5, 0, 5):
            draw.line((x, y, x + lean, y - rng.uniform(8, 14)), "#4f9f38", 3)
    for _ in range(14):
        x, y = _uniform(rng, (0, 512), (352, 505))
        petal = rng.choice(("#ffffff", "#ffd3ea", "#fff09a"))
        for across, down in ((-4, 0), (4, 0), (0, -4), (0, 4)):
            _disc(draw, x + across, y + down, 3.4, petal)
        _disc(draw, x, y, 3, "#f5a623")


def _beach(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    _fade(image, 236, 372, "#3fa3d0", "#86e0d6")
    for _ in range(16):
        x, y, length = _uniform(rng, (-20, 512), (246, 318), (20, 60))
        draw.line((x, y, x + length, y), "#b4ecec", 3)
    shore, wave = rng.uniform(338, 350), _wave(rng)
    foam, wet_sand, sand = "#ffffff", "#d8b77c", "#f3dca6"
    for drop, colour in ((-9, foam), (0, wet_sand), (9, sand)):
        _hills(draw, wave, shore + drop, 7, colour)
    _fade(image, 372, CANVAS, sand, "#e4c27e")
    for _ in range(140):  # grains
        _disc(draw, *_uniform(rng, (0, 512), (372, 510), (1, 2)), "#d3ae6c")
    for _ in range(5):  # shells
        x, y = _uniform(rng, (10, 500), (385, 500))
        shell = rng.choice(("#fff", "#f7b7a3"))
        draw.pieslice((x - 9, y - 9, x + 9, y + 9), 200, 340, shell)


def _snow(image: Image.Image, draw: Brush, rng: Random) -> None:
    sky = rng.choice(("#a9cdeb", "#b9c4e6", "#c3d4de"))
    _fade(image, 0, 320, sky, "#eff6fb")
    _hills(draw, _wave(rng), 262, 30, "#d3e3f1")
    _firs(draw, rng, 286, "#5d8f86", "#ffffff")
    _hills(draw, _wave(rng), 308, 14, "#e6f0f8")
    _hills(draw, _wave(rng), 350, 14, "#f6fafd")
    _fade(image, 366, CANVAS, "#f6fafd", "#cfe0ef")
    for _ in range(70):  # flakes
        _disc(draw, *_uniform(rng, (0, 512), (0, 512), (2, 4)), "#ffffff")


def _street(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    x = -rng.uniform(0, 60)
    while x < CANVAS:
        x += _house(draw, rng, x) + 4
    _fade(image, 340, 384, "#d6d2cb", "#c3beb6")  # the pavement
    draw.rectangle((0, 380, 512, 388), "#9d978e")
    _fade(image, 388, CANVAS, "#74767d", "#5b5d64")  # the road
    for start in range(-int(rng.uniform(0, 90)), CANVAS, 90):
        draw.rectangle((start, 446, start + 48, 453), "#f4efdc")


def _house(draw: Brush, rng: Random, x: float) -> float:
    """Draw a house with its left wall at `x`; returns its width."""
    width, roof = _uniform(rng, (80, 130), (110, 210))
    warm, cool = ("#e9a27c", "#f0c987", "#d98b8b"), ("#9cbcc9", "#b9a7cf")
    wall = rng.choice((*warm, *cool, "#a8c3a0"))
    draw.rectangle((x, roof, x + width, 350), wall)
    draw.rectangle((x - 3, roof - 8, x + width + 1, roof + 4), "#7d6a67")
    for row in range(int(roof) + 22, 310, 44):
        for column in range(3):
            left = x + width * (0.12 + 0.28 * column)
            pane = rng.choice(("#fdf0b0", "#dff1f8", "#dff1f8"))
            window = left, row, left + width * 0.2, row + 26
            draw.rectangle(window, pane, "#ffffff", 2)
    return width


def _desert(image: Image.Image, draw: Brush, rng: Random) -> None:
    skies = (
        ("#f9b572", "#fff0cf"),
        ("#7cc3e8", "#fdf0d0"),
        ("#e88f7a", "#ffe0b0"),
    )
    _fade(image, 0, 320, *rng.choice(skies))
    _glow(draw, *_uniform(rng, (50, 460), (50, 130), (32, 44)), "#fff3b8")
    for _ in range(rng.randint(1, 3)):  # table mountains
        x, top, width = _uniform(rng, (0, 460), (200, 250), (50, 110))
        plateau = (x, top), (x + width, top)
        foot = (x + width + 26, 320), (x - 26, 320)
        draw.polygon([*plateau, *foot], "#c9805a")
        draw.line((x - 8, top + 24, x + width + 8, top + 24), "#dd9a70", 7)
    _hills(draw, _wave(rng), 292, 22, "#efc586")
    wave = _wave(rng)
    _hills(draw, wave, 326, 16, "#fbdca0")  # a dune's lit edge, then the dune
    _hills(draw, wave, 331, 16, "#e9b96f")
    _fade(image, 350, CANVAS, "#e9b96f", "#d79f55")
    for _ in range(12):
        x, y, length = _uniform(rng, (-20, 512), (366, 505), (40, 90))
        draw.arc((x, y, x + length, y + 12), 190, 350, "#c98f48", 3)


def _night(image: Image.Image, draw: Brush, rng: Random) -> None:
    horizon = rng.choice(("#5a56a0", "#3a6f9c", "#7c5490"))
    _fade(image, 0, 330, "#0f1a52", horizon)
    for _ in range(90):  # stars
        glint = rng.choice(("#ffffff", "#fff3c4", "#cfe0ff"))
        _disc(draw, *_uniform(rng, (0, 512), (0, 290), (1, 2.6)), glint)
    _moon(draw, *_uniform(rng, (50, 460), (50, 105), (30, 40)))
    _hills(draw, _wave(rng), 276, 28, "#34437c")
    _firs(draw, rng, 296, "#22305f", "#465a97")
    _hills(draw, _wave(rng), 312, 14, "#2b4a72")
    _hills(draw, _wave(rng), 336, 8, "#376873")
    _fade(image, 346, CANVAS, "#376873", "#224853")
    for _ in range(12):  # fireflies
        _glow(draw, *_uniform(rng, (0, 512), (300, 490)), 3, "#f9f08a")


def _moon(draw: Brush, x: float, y: float, radius: float) -> None:
    _glow(draw, x, y, radius, "#fdf3cf")
    craters = (-0.35, -0.2, 0.2), (0.3, 0.25, 0.26), (0.1, -0.5, 0.13)
    for across, down, share in craters:
        place = x + across * radius, y + down * radius
        _disc(draw, *place, share * radius, "#eadfb4")


def _water(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    _hills(draw, _wave(rng), 262, 22, "#a5cfc9")
    _fade(image, 268, CANVAS, "#59b9de", "#1f74ae")
    for row in range(284, CANVAS, 20):
        shift, length = rng.uniform(-60, 0), 26 + (row - 284) / 8
        for x in range(int(shift), CANVAS, int(length * 2.2)):
            ripple = x, row, x + length, row + length / 3
            draw.arc(ripple, 20, 160, "#9adcf0", 3)


def _room(image: Image.Image, draw: Brush, rng: Random) -> None:
    walls = (
        "#f5e1c8 #efd5b5",
        "#d5e6e0 #c6dcd4",
        "#e7dcee #dccee6",
        "#f7d9d2 #f1cac1",
    )
    wall, stripe = rng.choice(walls).split()
    draw.rectangle((0, 0, 512, 350), wall)
    for x in range(-int(rng.uniform(0, 48)), CANVAS, 48):
        draw.rectangle((x, 0, x + 22, 350), stripe)
    window, frame = rng.sample((36, 196, 356), 2)
    _window(draw, window, rng.choice(("#8fd0f2", "#bcd7f5", "#ffd9b8")))
    _painting(draw, frame + 10, rng.choice(("#b98552", "#6f8fa6", "#c46f5c")))
    draw.rectangle((0, 334, 512, 352), "#ffffff")
    _fade(image, 352, CANVAS, "#cf9a63", "#b57d48")
    for slope in range(-12, 13):
        draw.line((256 + slope * 46, 352, 256 + slope * 78, 512), "#a87040", 2)
    rug = rng.choice(("#c75b5b", "#5b86c7", "#6aa57a"))
    draw.ellipse((60, 386, 452, 504), rug)
    draw.ellipse((84, 396, 428, 494), None, "#fbf3e2", 5)


def _window(draw: Brush, x: float, sky: str) -> None:
    draw.rectangle((x - 8, 46, x + 128, 206), "#ffffff")
    draw.rectangle((x, 54, x + 120, 198), sky)
    draw.chord((x, 148, x + 120, 248), 180, 360, "#9bcf85")
    draw.rectangle((x + 57, 54, x + 63, 198), "#ffffff")
    draw.rectangle((x, 122, x + 120, 128), "#ffffff")
    draw.rectangle((x - 16, 198, x + 136, 210), "#ffffff")


def _painting(draw: Brush, x: float, frame: str) -> None:
    draw.rectangle((x, 70, x + 90, 180), frame)
    draw.rectangle((x + 10, 80, x + 80, 170), "#fdf8ec")
    _disc(draw, x + 56, 104, 11, "#f6c453")
    draw.polygon([(x + 10, 170), (x + 38, 116), (x + 66, 170)], "#7aa88c")
    draw.polygon([(x + 34, 170), (x + 60, 136), (x + 80, 170)], "#5d8f9c")


SETTINGS = {
    "meadow": _meadow,
    "beach": _beach,
    "snow": _snow,
    "street": _street,
    "desert": _desert,
    "night": _night,
    "water": _water,
    "room": _room,
}
