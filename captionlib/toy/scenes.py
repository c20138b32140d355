"""The toy world: scenes drawn from sprites, with captions that are true of them.

The page "The toy world" tells how a scene becomes five sentences.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageOps
from tqdm.auto import tqdm

from captionlib.config import ScenesConfig
from captionlib.io.files import (
    ASSETS,
    atomic_file,
    require_free_space,
    write_json,
)
from captionlib.toy.scenery import CANVAS, SETTINGS, paint_setting

__all__ = [
    "CAPTIONS",
    "COUNTS",
    "CROWDED",
    "DRY",
    "GROUPS",
    "KINDS",
    "Kind",
    "LENGTHS",
    "PLACES",
    "PLURALS",
    "SIZE",
    "SIZE_WORDS",
    "SKIES",
    "SYNONYMS",
    "Scene",
    "TEMPLATES",
    "Thing",
    "describe",
    "draw_scene",
    "random_scene",
    "scene_with_captions",
    "sentence",
    "sprite",
    "tokenise",
    "write_scenes",
]


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


def write_scenes(
    folder: str | Path,
    *,
    train: int = ScenesConfig.train,
    val: int = ScenesConfig.val,
    test: int = ScenesConfig.test,
    seed: int = ScenesConfig.seed,
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
