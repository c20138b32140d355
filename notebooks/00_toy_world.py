# ---
# jupyter:
#   captionlib:
#     module: scenes
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: captionlib
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---


# %% [markdown]
# # A toy world
#
# How can you tell whether a captioner is right, and whether it looked at the right thing?

# %%
#| export
from dataclasses import dataclass

DRY = "meadow beach snow street desert night"

# What it does, where it is met, and its names; an underscore stands for a space.
GROUPS = (
    ("standing", DRY + " room", "dog cat rabbit man woman"),
    ("standing", "meadow snow street night", "horse cow sheep pig"),
    ("standing", "meadow beach street", "duck"),
    ("standing", "meadow desert night", "elephant giraffe tiger dinosaur"),
    ("standing", "beach desert", "camel turtle"),
    ("standing", "snow", "penguin snowman"),
    ("standing", "meadow snow street night", "tree house castle"),
    ("standing", "meadow beach snow desert night", "tent"),
    ("standing", "meadow beach street", "umbrella"),
    ("standing", "room", "chair sofa"),
    ("running", "meadow beach street", "runner"),
    ("dancing", "beach street room", "dancer"),
    ("parked", "beach snow street desert night", "car bus"),
    ("parked", "meadow beach street", "bicycle"),
    ("parked", "meadow snow", "tractor"),
    ("waiting", "snow desert night", "train"),
    ("growing", "beach desert", "palm_tree"),
    ("growing", "meadow", "sunflower mushroom"),
    ("growing", "desert", "cactus"),
    ("lying", "meadow beach street room", "ball guitar"),
    ("lying", "snow room", "gift teddy_bear"),
    ("lying", "meadow room", "cake pumpkin apple"),
    ("lying", "beach room", "pizza"),
    ("sailing", "water", "boat"),
    ("swimming", "water", "swan whale dolphin"),
    ("flying", DRY + " water room", "balloon"),
    ("flying", "meadow beach snow street water desert", "kite airplane helicopter"),
    ("flying", "meadow beach room", "butterfly"),
    ("flying", "desert night", "rocket"),
)
PLURALS = {  # only these come in twos and threes
    **{"sheep": "sheep", "butterfly": "butterflies"},
    **{name: name + "s" for name in "dog cat rabbit horse cow duck penguin camel tree".split()},
    **{name: name + "s" for name in "gift apple boat swan dolphin balloon kite".split()},
}
SYNONYMS = {"bicycle": "bike", "rabbit": "bunny", "airplane": "plane", "gift": "present"}


@dataclass(frozen=True)
class Kind:
    """What an object may be called, what it does and where it may be met."""

    name: str  # as a caption says it: "palm tree"
    doing: str  # "standing", "flying", ...
    settings: tuple[str, ...]

    @property
    def flies(self) -> bool:
        return self.doing == "flying"

    @property
    def words(self) -> list[str]:
        """Every caption word that can name it."""
        names = [self.name, SYNONYMS.get(self.name, ""), PLURALS.get(self.name, "")]
        return list(dict.fromkeys(" ".join(names).split()))


KINDS = {
    name: Kind(name, doing, tuple(settings.split()))
    for doing, settings, names in GROUPS
    for name in (name.replace("_", " ") for name in names.split())
}

# %%
#| export
from functools import cache
from pathlib import Path

from PIL import Image, ImageOps

from captionlib.files import ASSETS


@cache
def sprite(name: str, size: int = 128, flipped: bool = False) -> Image.Image:
    """One object's picture, `size` pixels along its longer side.

    Args:
        name: a key of `KINDS`.
        size: pixels; the files hold 128.
        flipped: mirrored, left to right.

    Returns:
        An RGBA image without margins. It is kept for the next call: paste it, don't change it.
    """
    picture = Image.open(ASSETS / "sprites" / f"{name.replace(' ', '_')}.png").convert("RGBA")
    picture = ImageOps.contain(picture, (size, size), Image.Resampling.LANCZOS)
    return ImageOps.mirror(picture) if flipped else picture


# %%
#| export
import math
from random import Random

from PIL import ImageChops, ImageColor, ImageDraw
from PIL.ImageDraw import ImageDraw as Brush

SIZE = 256  # pixels along each side of a scene
CANVAS = 512  # settings are painted twice as large and halved: smooth edges


def _fade(image: Image.Image, top: int, bottom: int, start: str, end: str) -> None:
    """Paint rows `top` to `bottom` from one colour to the other."""
    pairs = list(zip(ImageColor.getrgb(start), ImageColor.getrgb(end), strict=True))
    strip = Image.new("RGB", (1, bottom - top))
    for row in range(bottom - top):
        share = row / (bottom - top)
        strip.putpixel((0, row), tuple(round(a + (b - a) * share) for a, b in pairs))
    image.paste(strip.resize((CANVAS, bottom - top)), (0, top))


def _disc(draw: Brush, x: float, y: float, radius: float, colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _glow(draw: Brush, x: float, y: float, radius: float, colour: str) -> None:
    """A sun, a moon or a firefly, with light around it."""
    for step in (6, 5, 4, 3, 2, 1):
        _disc(draw, x, y, radius * (1 + step / 4), (*ImageColor.getrgb(colour), 22))
    _disc(draw, x, y, radius, colour)


def _wave(rng: Random) -> tuple[float, float]:
    return rng.uniform(0, 6.3), rng.uniform(4, 9)


def _hills(draw: Brush, wave: tuple[float, float], level: float, swell: float, colour) -> None:
    """Paint everything below a wavy line."""
    phase, bumps = wave
    steps = range(0, CANVAS + 1, 8)
    ridge = [(x, level - swell * math.sin(phase + bumps * x / CANVAS)) for x in steps]
    draw.polygon([(0, CANVAS), *ridge, (CANVAS, CANVAS)], fill=colour)


def _sky(image: Image.Image, draw: Brush, rng: Random) -> None:
    """A noon, a morning or an evening, with its sun and clouds."""
    top, bottom, cloud = rng.choice(
        (
            ("#5db7f0", "#e6f6fd", "#ffffff"),
            ("#86cbf2", "#fff3d2", "#fffdf6"),
            ("#93a2e2", "#ffd9c4", "#fff1eb"),
        )
    )
    _fade(image, 0, 320, top, bottom)
    _glow(draw, rng.uniform(50, 460), rng.uniform(45, 110), rng.uniform(26, 36), "#ffdf70")
    for _ in range(rng.randint(2, 4)):
        x, y, puff = rng.uniform(0, 512), rng.uniform(45, 190), rng.uniform(16, 32)
        for across, up, share in ((-1.1, 0.1, 0.5), (-0.4, 0.45, 0.75), (0.5, 0.3, 0.65)):
            _disc(draw, x + across * puff, y - up * puff, share * puff, cloud)
        draw.rounded_rectangle((x - 1.7 * puff, y - 0.2 * puff, x + 1.5 * puff, y + 0.5 * puff),
                               puff / 2, cloud)


# %%
#| export
def _meadow(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    _hills(draw, _wave(rng), 270, 26, "#b3dd93")
    _hills(draw, _wave(rng), 300, 20, "#9ad47a")
    _hills(draw, _wave(rng), 332, 10, "#86cb5f")
    _fade(image, 345, CANVAS, "#86cb5f", "#5fae42")
    for _ in range(40):
        x, y = rng.uniform(0, 512), rng.uniform(355, 508)
        for lean in (-5, 0, 5):
            draw.line((x, y, x + lean, y - rng.uniform(8, 14)), "#4f9f38", 3)
    for _ in range(14):
        x, y = rng.uniform(0, 512), rng.uniform(352, 505)
        petal = rng.choice(("#ffffff", "#ffd3ea", "#fff09a"))
        for across, down in ((-4, 0), (4, 0), (0, -4), (0, 4)):
            _disc(draw, x + across, y + down, 3.4, petal)
        _disc(draw, x, y, 3, "#f5a623")


def _beach(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    _fade(image, 236, 372, "#3fa3d0", "#86e0d6")
    for _ in range(16):
        x, y, length = rng.uniform(-20, 512), rng.uniform(246, 318), rng.uniform(20, 60)
        draw.line((x, y, x + length, y), "#b4ecec", 3)
    shore, wave = rng.uniform(338, 350), _wave(rng)
    for drop, colour in ((-9, "#ffffff"), (0, "#d8b77c"), (9, "#f3dca6")):
        _hills(draw, wave, shore + drop, 7, colour)
    _fade(image, 372, CANVAS, "#f3dca6", "#e4c27e")
    for _ in range(140):
        _disc(draw, rng.uniform(0, 512), rng.uniform(372, 510), rng.uniform(1, 2), "#d3ae6c")
    for _ in range(5):
        x, y = rng.uniform(10, 500), rng.uniform(385, 500)
        draw.pieslice((x - 9, y - 9, x + 9, y + 9), 200, 340, rng.choice(("#fff", "#f7b7a3")))


def _snow(image: Image.Image, draw: Brush, rng: Random) -> None:
    _fade(image, 0, 320, rng.choice(("#a9cdeb", "#b9c4e6", "#c3d4de")), "#eff6fb")
    _hills(draw, _wave(rng), 262, 30, "#d3e3f1")
    for _ in range(rng.randint(6, 10)):
        x, y, tall = rng.uniform(0, 512), rng.uniform(286, 306), rng.uniform(34, 60)
        for level in (0, 0.28, 0.56):
            half, foot = tall * (0.34 - 0.3 * level * 0.6), y - tall * level
            draw.polygon([(x - half, foot), (x + half, foot), (x, foot - tall * 0.5)], "#5d8f86")
            draw.polygon([(x - half * 0.45, foot - tall * 0.28), (x + half * 0.45, foot
                         - tall * 0.28), (x, foot - tall * 0.5)], "#ffffff")
    _hills(draw, _wave(rng), 308, 14, "#e6f0f8")
    _hills(draw, _wave(rng), 350, 14, "#f6fafd")
    _fade(image, 366, CANVAS, "#f6fafd", "#cfe0ef")
    for _ in range(70):
        _disc(draw, rng.uniform(0, 512), rng.uniform(0, 512), rng.uniform(2, 4), "#ffffff")


def _street(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    x = -rng.uniform(0, 60)
    while x < CANVAS:
        width, roof = rng.uniform(80, 130), rng.uniform(110, 210)
        wall = rng.choice(("#e9a27c", "#f0c987", "#d98b8b", "#9cbcc9", "#b9a7cf", "#a8c3a0"))
        draw.rectangle((x, roof, x + width, 350), wall)
        draw.rectangle((x - 3, roof - 8, x + width + 1, roof + 4), "#7d6a67")
        for row in range(int(roof) + 22, 310, 44):
            for column in range(3):
                left = x + width * (0.12 + 0.28 * column)
                pane = rng.choice(("#fdf0b0", "#dff1f8", "#dff1f8"))
                draw.rectangle((left, row, left + width * 0.2, row + 26), pane, "#ffffff", 2)
        x += width + 4
    _fade(image, 340, 384, "#d6d2cb", "#c3beb6")
    draw.rectangle((0, 380, 512, 388), "#9d978e")
    _fade(image, 388, CANVAS, "#74767d", "#5b5d64")
    for start in range(-int(rng.uniform(0, 90)), CANVAS, 90):
        draw.rectangle((start, 446, start + 48, 453), "#f4efdc")


def _desert(image: Image.Image, draw: Brush, rng: Random) -> None:
    _fade(image, 0, 320, *rng.choice((("#f9b572", "#fff0cf"), ("#7cc3e8", "#fdf0d0"),
                                      ("#e88f7a", "#ffe0b0"))))
    _glow(draw, rng.uniform(50, 460), rng.uniform(50, 130), rng.uniform(32, 44), "#fff3b8")
    for _ in range(rng.randint(1, 3)):
        x, top, width = rng.uniform(0, 460), rng.uniform(200, 250), rng.uniform(50, 110)
        draw.polygon([(x, top), (x + width, top), (x + width + 26, 320), (x - 26, 320)], "#c9805a")
        draw.line((x - 8, top + 24, x + width + 8, top + 24), "#dd9a70", 7)
    _hills(draw, _wave(rng), 292, 22, "#efc586")
    wave = _wave(rng)
    _hills(draw, wave, 326, 16, "#fbdca0")
    _hills(draw, wave, 331, 16, "#e9b96f")
    _fade(image, 350, CANVAS, "#e9b96f", "#d79f55")
    for _ in range(12):
        x, y, length = rng.uniform(-20, 512), rng.uniform(366, 505), rng.uniform(40, 90)
        draw.arc((x, y, x + length, y + 12), 190, 350, "#c98f48", 3)


def _night(image: Image.Image, draw: Brush, rng: Random) -> None:
    _fade(image, 0, 330, "#0d1645", rng.choice(("#4b4a8c", "#2f5d8a", "#6a4a80")))
    for _ in range(90):
        glint = rng.choice(("#ffffff", "#fff3c4", "#cfe0ff"))
        _disc(draw, rng.uniform(0, 512), rng.uniform(0, 290), rng.uniform(1, 2.6), glint)
    x, y, radius = rng.uniform(50, 460), rng.uniform(50, 105), rng.uniform(30, 40)
    _glow(draw, x, y, radius, "#fdf3cf")
    for across, down, share in ((-0.35, -0.2, 0.2), (0.3, 0.25, 0.26), (0.1, -0.5, 0.13)):
        _disc(draw, x + across * radius, y + down * radius, share * radius, "#eadfb4")
    _hills(draw, _wave(rng), 276, 28, "#27366a")
    _hills(draw, _wave(rng), 312, 18, "#223d62")
    _fade(image, 340, CANVAS, "#2b5160", "#1b3a48")
    _hills(draw, _wave(rng), 336, 8, "#2b5160")
    _fade(image, 350, CANVAS, "#2b5160", "#1b3a48")
    for _ in range(12):
        _glow(draw, rng.uniform(0, 512), rng.uniform(290, 490), 3, "#f9f08a")


def _water(image: Image.Image, draw: Brush, rng: Random) -> None:
    _sky(image, draw, rng)
    _hills(draw, _wave(rng), 262, 22, "#a5cfc9")
    _fade(image, 268, CANVAS, "#59b9de", "#1f74ae")
    for row in range(284, 512, 20):
        shift, length = rng.uniform(-60, 0), 26 + (row - 284) / 8
        for x in range(int(shift), CANVAS, int(length * 2.2)):
            draw.arc((x, row, x + length, row + length / 3), 20, 160, "#9adcf0", 3)


def _room(image: Image.Image, draw: Brush, rng: Random) -> None:
    wall, stripe = rng.choice((("#f5e1c8", "#efd5b5"), ("#d5e6e0", "#c6dcd4"),
                               ("#e7dcee", "#dccee6"), ("#f7d9d2", "#f1cac1")))
    draw.rectangle((0, 0, 512, 350), wall)
    for x in range(-int(rng.uniform(0, 48)), CANVAS, 48):
        draw.rectangle((x, 0, x + 22, 350), stripe)
    left, right = rng.sample((36, 196, 356), 2)
    _fade_window = rng.choice(("#8fd0f2", "#bcd7f5", "#ffd9b8"))
    draw.rectangle((left - 8, 46, left + 128, 206), "#ffffff")
    draw.rectangle((left, 54, left + 120, 198), _fade_window)
    draw.pieslice((left - 10, 150, left + 130, 246), 200, 340, "#9bcf85")
    draw.rectangle((left - 8, 198, left + 128, 250), wall)
    draw.rectangle((left + 57, 54, left + 63, 198), "#ffffff")
    draw.rectangle((left, 122, left + 120, 128), "#ffffff")
    draw.rectangle((left - 16, 198, left + 136, 210), "#ffffff")
    frame = rng.choice(("#b98552", "#6f8fa6", "#c46f5c"))
    draw.rectangle((right + 10, 70, right + 100, 180), frame)
    draw.rectangle((right + 20, 80, right + 90, 170), "#fdf8ec")
    _disc(draw, right + 66, 104, 11, "#f6c453")
    draw.polygon([(right + 20, 170), (right + 48, 116), (right + 76, 170)], "#7aa88c")
    draw.polygon([(right + 44, 170), (right + 70, 136), (right + 90, 170)], "#5d8f9c")
    draw.rectangle((0, 334, 512, 352), "#ffffff")
    _fade(image, 352, CANVAS, "#cf9a63", "#b57d48")
    for slope in range(-12, 13):
        draw.line((256 + slope * 46, 352, 256 + slope * 78, 512), "#a87040", 2)
    rug = rng.choice(("#c75b5b", "#5b86c7", "#6aa57a"))
    draw.ellipse((60, 386, 452, 504), rug)
    draw.ellipse((84, 396, 428, 494), None, "#fbf3e2", 5)


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


def paint_setting(setting: str, look: int) -> Image.Image:
    """A setting without objects, `CANVAS` pixels square, RGB; `look` varies hills, clouds, light."""
    image = Image.new("RGB", (CANVAS, CANVAS))
    SETTINGS[setting](image, ImageDraw.Draw(image, "RGBA"), Random(look))
    return image


# %%
#| export
@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    name: str  # a key of `KINDS`
    size: str  # "small", "big", or "" where no caption speaks of it
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 just outside
    flipped: bool


@dataclass(frozen=True)
class Scene:
    """Every fact about a picture: enough to draw it and to describe it."""

    setting: str  # a key of `SETTINGS`
    look: int  # seed of the setting's hills, clouds and light
    things: tuple[Thing, ...]  # on the ground from left to right, then in the air


# %%
#| export
def draw_scene(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 256 x 256 pixels, the same for the same scene."""
    canvas = paint_setting(scene.setting, scene.look)
    draw = ImageDraw.Draw(canvas, "RGBA")
    for thing in scene.things:
        if not KINDS[thing.name].flies and scene.setting != "water":
            x0, _, x1, base = (2 * edge for edge in thing.box)
            for spread in (0, 6):  # two ellipses, one inside the other: a soft shadow
                draw.ellipse((x0 + spread, base - 14 + spread / 2, x1 - spread, base + 8
                              - spread / 2), (20, 30, 50, 38))
    image = canvas.reduce(CANVAS // SIZE)
    for thing in sorted(scene.things, key=lambda thing: thing.box[3]):  # the nearest last
        x0, y0, x1, y1 = thing.box
        picture = sprite(thing.name, max(x1 - x0, y1 - y0), thing.flipped)
        if scene.setting == "water" and not KINDS[thing.name].flies:
            picture = _afloat(thing.name, max(x1 - x0, y1 - y0), thing.flipped)
        image.paste(picture, (x0, y0), picture)
    return image


@cache
def _afloat(name: str, size: int, flipped: bool) -> Image.Image:
    """A sprite whose lowest part fades into the water."""
    picture = sprite(name, size, flipped).copy()
    depth = round(0.16 * picture.height)
    fade = Image.linear_gradient("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    box = 0, picture.height - depth, picture.width, picture.height
    fade = fade.resize((picture.width, depth))
    alpha = picture.getchannel("A")
    alpha.paste(ImageChops.multiply(alpha.crop(box), fade), box)
    picture.putalpha(alpha)
    return picture


# %%
#| export
LENGTHS = {"small": 60, "": 88, "big": 122}  # pixels along the longer side
CROWDED = 76  # where three share the picture, nobody is small or big

# How many of each group stand in a scene, and how often.
COUNTS = {(1,): 24, (1, 1): 36, (1, 1, 1): 18, (2,): 6, (3,): 4, (1, 2): 6, (2, 1): 6}


def random_scene(rng: Random) -> Scene:
    """Make up a scene: a setting, one to three objects, their sizes and places.

    Objects on the ground stand in one row without hiding each other; at most one group flies, above
    everything that stands.
    """
    setting, look = rng.choice(list(SETTINGS)), rng.getrandbits(32)
    counts = rng.choices(list(COUNTS), list(COUNTS.values()))[0]
    kinds = _choose_kinds(setting, counts, rng)
    ground, air = [], []
    for kind, count in zip(kinds, counts, strict=True):
        sizes = ("small", "") if kind.flies and len(kinds) > 1 else ("small", "", "big")
        size = "" if sum(counts) == 3 else rng.choice(sizes)
        length = CROWDED if sum(counts) == 3 else LENGTHS[size]
        frame = sprite(kind.name, length).size
        (air if kind.flies else ground).extend([(kind.name, size, frame)] * count)
    bases = [rng.randint(236 if air or size == "big" else 206, 247) for _, size, _ in ground]
    tops = [base - frame[1] for base, (_, _, frame) in zip(bases, ground, strict=True)]
    lefts = _spread([frame[0] for _, _, frame in ground], rng)
    ceiling = min(tops, default=200)
    air_tops = [rng.randint(5, max(5, ceiling - frame[1] - 2)) for _, _, frame in air]
    air_lefts = _spread([frame[0] for _, _, frame in air], rng)
    if len(ground) == len(air) == 1:  # "above" should mean straight above
        middle = lefts[0] + (ground[0][2][0] - air[0][2][0]) // 2 + rng.randint(-24, 24)
        air_lefts = [min(max(middle, 4), SIZE - 4 - air[0][2][0])]
    things = [
        Thing(name, size, (left, top, left + frame[0], top + frame[1]), rng.random() < 0.5)
        for (name, size, frame), left, top in zip(
            ground + air, lefts + air_lefts, tops + air_tops, strict=True
        )
    ]
    return Scene(setting, look, tuple(things))


def _choose_kinds(setting: str, counts: tuple[int, ...], rng: Random) -> list[Kind]:
    """A different kind for each group; in three scenes of ten the last one flies."""
    chosen: list[Kind] = []
    last_flies = rng.random() < 0.3
    for index, count in enumerate(counts):
        flies = last_flies and index == len(counts) - 1
        taken = {word for kind in chosen for word in kind.words}
        fitting = [
            kind
            for kind in KINDS.values()
            if setting in kind.settings
            and kind.flies == flies
            and (count == 1 or kind.name in PLURALS)
            and not taken & set(kind.words)  # no palm tree beside a tree
        ]
        chosen.append(rng.choice(fitting))
    return chosen


def _spread(widths: list[int], rng: Random, edge: int = 3, gap: int = 4) -> list[int]:
    """Left edges of a row of objects, the free room between them shared out at random."""
    free = SIZE - 2 * edge - gap * (len(widths) - 1) - sum(widths)
    shifts = sorted(rng.randint(0, free) for _ in widths)
    return [
        edge + shift + gap * index + sum(widths[:index]) for index, shift in enumerate(shifts)
    ]


# %%
#| export
PLACES = {  # the first is said most
    "meadow": ("on the grass", "in a meadow", "in a green field"),
    "beach": ("on the beach", "on the sand", "by the sea"),
    "snow": ("in the snow", "on a snowy day", "in winter"),
    "street": ("on the street", "in the city", "on the road"),
    "desert": ("in the desert", "in the hot desert", "among the dunes"),
    "night": ("at night", "under the stars", "under the moon"),
    "water": ("on the water", "on the waves", "at sea"),
    "room": ("in a room", "on the floor", "at home"),
}
SKIES = {  # the same, where nothing stands on the ground
    "meadow": ("over the grass", "over a meadow", "over a green field"),
    "beach": ("over the beach", "over the sand", "by the sea"),
    "snow": ("over the snow", "on a snowy day", "in winter"),
    "street": ("over the street", "over the city", "in the city"),
    "desert": ("over the desert", "over the hot desert", "over the dunes"),
    "night": ("at night", "under the stars", "in the night sky"),
    "water": ("over the water", "over the waves", "over the sea"),
    "room": ("in a room", "over the floor", "at home"),
}
TEMPLATES = {
    "alone": (
        "{a} {a_doing} {place}",
        "{a} {place}",
        "there {a_is} {a} {place}",
        "{place} there {a_is} {a}",
    ),
    "beside": (  # a stands left of b
        "{a} to the left of {b} {place}",
        "{b} to the right of {a} {place}",
        "{a} {a_doing} next to {b} {place}",
        "{a} and {b} {place}",
        "there {a_is} {a} and {b} {place}",
    ),
    "above": (  # a flies above b
        "{a} flying above {b} {place}",
        "{a} above {b} {place}",
        "{b} below {a} {place}",
        "{b} {b_doing} below {a} {place}",
    ),
    "three": (  # from left to right
        "{a}, {b} and {c} {place}",
        "{b} between {a} and {c} {place}",
        "{b} {b_doing} between {a} and {c} {place}",
        "there {a_is} {a}, {b} and {c} {place}",
    ),
    "above two": (  # c flies above a and b
        "{c} flying above {a} and {b} {place}",
        "{c} above {a} and {b} {place}",
        "{a} and {b} below {c} {place}",
        "{a} {a_doing} next to {b} below {c} {place}",
    ),
}


def sentence(scene: Scene, rng: Random) -> str:
    """One true sentence about a scene, in words chosen by `rng`, with capital and full stop."""
    groups = [list(group) for _, group in groupby(scene.things, lambda thing: thing.name)]
    kinds = [KINDS[group[0].name] for group in groups]
    if len(groups) > 1 and kinds[-1].flies:
        layout = "above" if len(groups) == 2 else "above two"
    else:
        layout = ("alone", "beside", "three")[len(groups) - 1]
    if layout == "above":
        groups, kinds = groups[::-1], kinds[::-1]
    facts = {"place": _pick((SKIES if kinds[0].flies and layout == "alone" else PLACES)
                            [scene.setting], rng)}
    for letter, group, kind in zip("abc", groups, kinds, strict=False):
        facts[letter] = _noun_phrase(group, rng)
        facts[f"{letter}_doing"] = kind.doing
        facts[f"{letter}_is"] = "is" if len(group) == 1 else "are"
    text = _pick(TEMPLATES[layout], rng).format(**facts)
    return text[0].upper() + text[1:] + "."


def _pick(options: tuple[str, ...], rng: Random) -> str:
    """Choose one, the earlier the likelier."""
    return rng.choices(options, [1 / (rank + 1) for rank in range(len(options))])[0]


def _noun_phrase(group: list[Thing], rng: Random) -> str:
    """ "a small dog", "an elephant", "two sheep"; sizes and synonyms are sometimes used."""
    name = group[0].name
    size = group[0].size if rng.random() < 0.6 else ""
    if len(group) > 1:
        return " ".join([("two", "three")[len(group) - 2], size, PLURALS[name]]).replace("  ", " ")
    if rng.random() < 0.25:
        name = SYNONYMS.get(name, name)
    noun = f"{size} {name}".strip()
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def tokenise(text: str) -> list[str]:
    """Lower-case words without punctuation, as in Karpathy's files."""
    return re.findall(r"[a-z]+", text.lower())


def describe(scene: Scene, rng: Random) -> list[str]:
    """A fresh caption of a scene: lower-case tokens."""
    return tokenise(sentence(scene, rng))


# %%
#| export
import re
from itertools import groupby

from tqdm.auto import tqdm

from captionlib.files import atomic_file, require_free_space, write_json

CAPTIONS = 5  # per image, as in Flickr8k


def scene_with_captions(split: str, index: int, seed: int = 0) -> tuple[Scene, list[str]]:
    """Scene `index` of a split and its five differently worded sentences.

    It depends on nothing but the three arguments: not on the process, nor on how many are drawn.
    """
    rng = Random(f"{seed} {split} {index}")  # a string seed is hashed the same way everywhere
    scene = random_scene(rng)
    sentences: dict[str, None] = {}
    while len(sentences) < CAPTIONS:
        sentences[sentence(scene, rng)] = None
    return scene, list(sentences)


def write_scenes(
    folder: str | Path,
    *,
    train: int = 1500,
    val: int = 200,
    test: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write the toy world as a data set that takes the same road as Flickr8k.

    Args:
        folder: gets `images/*.png`, `dataset_scenes.json` in Karpathy's format, and
            `objects_scenes.json`: for each file name a list of objects, each with its `name`, its
            `box` (x0, y0, x1, y1 in pixels) and the `words` that can name it.
        train, val, test: scenes in each split.
        seed: another seed is another data set.
        progress: show a progress bar.

    Returns:
        The path of `dataset_scenes.json`.

    Raises:
        InputError: if the disk has too little room.

    A rerun writes the same bytes. Files appear whole or not at all, the JSON last.
    """
    folder = Path(folder)
    positions = [
        (split, index)
        for split, count in (("train", train), ("val", val), ("test", test))
        for index in range(count)
    ]
    require_free_space(folder, 100_000 * len(positions))
    images, objects = [], {}
    for imgid, (split, index) in enumerate(tqdm(positions, unit="scene", disable=not progress)):
        scene, sentences = scene_with_captions(split, index, seed)
        filename = f"{split}_{index:05d}.png"
        with atomic_file(folder / "images" / filename) as temporary:
            draw_scene(scene).save(temporary, compress_level=1)
        sentids = [CAPTIONS * imgid + n for n in range(CAPTIONS)]
        images.append(
            {
                "filename": filename,
                "imgid": imgid,
                "split": split,
                "sentids": sentids,
                "sentences": [
                    {"tokens": tokenise(raw), "raw": raw, "imgid": imgid, "sentid": sentid}
                    for sentid, raw in zip(sentids, sentences, strict=True)
                ],
            }
        )
        objects[filename] = [
            {"name": thing.name, "box": list(thing.box), "words": KINDS[thing.name].words}
            for thing in scene.things
        ]
    write_json(folder / "objects_scenes.json", objects)
    write_json(folder / "dataset_scenes.json", {"dataset": "scenes", "images": images})
    return folder / "dataset_scenes.json"
