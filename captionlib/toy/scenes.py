"""The toy world: drawn scenes, and captions that are true of them.

A scene is a list of facts. `random_scene` makes one up, `draw_scene` paints it,
`sentence` describes it, and `write_scenes` stores a whole data set in the files
that Flickr8k comes in. The book's page "The toy world" tells the story.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from random import Random
from typing import NamedTuple

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
from captionlib.toy.words import (
    GROUPS,
    PLACES,
    PLURALS,
    SIZE_WORDS,
    SKIES,
    SYNONYMS,
    TEMPLATES,
)

__all__ = [
    "CAPTIONS",
    "COUNTS",
    "CROWDED",
    "KINDS",
    "Kind",
    "LENGTHS",
    "SIZE",
    "Scene",
    "Thing",
    "choose",
    "describe",
    "draw_scene",
    "layout_of",
    "random_scene",
    "scene_with_captions",
    "sentence",
    "sprite",
    "tokenise",
    "write_scenes",
]

SIZE = 256  # pixels along each side of a scene
CAPTIONS = 5  # per image, as in Flickr8k
LENGTHS = {"small": 64, "": 90, "big": 122}  # pixels along the longer side
CROWDED = 76  # the same where three things share the picture

# How many of each kind, and how often: (1, 2) might be a tree and two dogs.
COUNTS = {
    (1,): 28,
    (1, 1): 40,
    (1, 1, 1): 12,
    (2,): 8,
    (3,): 4,
    (1, 2): 4,
    (2, 1): 4,
}


# What there is


@dataclass(frozen=True)
class Kind:
    """A kind of object: its name, what it does, and where it is at home."""

    name: str  # as a caption says it: "palm tree"
    doing: str  # "standing", "flying", ...
    settings: tuple[str, ...]

    @property
    def flies(self) -> bool:
        return self.doing == "flying"

    @property
    def words(self) -> list[str]:
        """Every caption word that can name it."""
        others = SYNONYMS.get(self.name, ""), PLURALS.get(self.name, "")
        names = " ".join([self.name, *others])
        return list(dict.fromkeys(names.split()))


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
        An RGBA image without margins, cached: paste it, do not change it.
    """
    file = ASSETS / "sprites" / f"{name.replace(' ', '_')}.png"
    picture = Image.open(file).convert("RGBA")
    picture = ImageOps.contain(picture, (size, size), Image.Resampling.LANCZOS)
    return ImageOps.mirror(picture) if flipped else picture


# What is in one picture


@dataclass(frozen=True)
class Thing:
    """One object in a scene."""

    name: str  # a key of `KINDS`
    size: str  # "small", "big", or "" where no caption mentions it
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1, y1 outside
    flipped: bool


@dataclass(frozen=True)
class Scene:
    """Every fact about a picture: enough to draw it and to describe it."""

    setting: str  # a key of `SETTINGS`
    look: int  # seed of the setting's hills, clouds and light
    things: tuple[Thing, ...]  # on the ground from left to right, then flying

    @property
    def groups(self) -> list[list[Thing]]:
        """Things that are mentioned together: a dog, two sheep, three kites."""
        by_name = groupby(self.things, lambda thing: thing.name)
        return [list(group) for _, group in by_name]


# Making a scene up


def random_scene(rng: Random) -> Scene:
    """Make up a setting and one to three things, none of them hidden.

    Objects that stand are in one row. At most one kind of thing flies, above
    everything that stands.
    """
    setting, look = rng.choice(list(SETTINGS)), rng.getrandbits(32)
    counts = rng.choices(list(COUNTS), list(COUNTS.values()))[0]
    kinds = _choose_kinds(setting, counts, rng)
    standing, flying = [], []
    for kind, count in zip(kinds, counts, strict=True):
        frame = _choose_size(kind, counts, rng)
        (flying if kind.flies else standing).extend([frame] * count)
    ground = _stand(standing, rng, low=bool(flying))
    return Scene(setting, look, (*ground, *_fly(flying, ground, rng)))


class _Frame(NamedTuple):
    """A thing that still needs a place."""

    name: str
    size: str
    width: int
    height: int

    def at(self, x: int, y: int, rng: Random) -> Thing:
        """Place its upper left corner; half of all things are mirrored."""
        box = x, y, x + self.width, y + self.height
        return Thing(self.name, self.size, box, rng.random() < 0.5)


def _choose_kinds(
    setting: str, counts: tuple[int, ...], rng: Random
) -> list[Kind]:
    """Choose a different kind for each count; in 30% the last one flies."""
    chosen: list[Kind] = []
    last_flies = rng.random() < 0.3
    for index, count in enumerate(counts):
        flies = last_flies and index == len(counts) - 1
        # No palm tree beside a tree: which of them would "tree" be?
        taken = {word for kind in chosen for word in kind.words}
        fitting = [
            kind
            for kind in KINDS.values()
            if setting in kind.settings
            and kind.flies == flies
            and (count == 1 or kind.name in PLURALS)
            and taken.isdisjoint(kind.words)
        ]
        # A kind with few settings is likelier in each: all become as common.
        weights = [1 / len(kind.settings) for kind in fitting]
        chosen.append(rng.choices(fitting, weights)[0])
    return chosen


def _choose_size(kind: Kind, counts: tuple[int, ...], rng: Random) -> _Frame:
    """Choose how large to draw a kind; three things are of one plain size."""
    if sum(counts) == 3:
        return _Frame(kind.name, "", *sprite(kind.name, CROWDED).size)
    little_room = kind.flies and len(counts) > 1
    size = rng.choice(["small", ""] if little_room else list(LENGTHS))
    return _Frame(kind.name, size, *sprite(kind.name, LENGTHS[size]).size)


def _stand(frames: list[_Frame], rng: Random, *, low: bool) -> list[Thing]:
    """Put things on the ground, in a row; `low` leaves room for what flies."""
    things = []
    for frame, x in zip(frames, _spread(frames, rng), strict=True):
        highest = 236 if low or frame.size == "big" else 206
        base = rng.randint(highest, 247)
        things.append(frame.at(x, base - frame.height, rng))
    return things


def _fly(frames: list[_Frame], ground: list[Thing], rng: Random) -> list[Thing]:
    """Put things in the air, above the tallest thing on the ground."""
    things = []
    lowest = min((thing.box[1] for thing in ground), default=160)
    for frame, x in zip(frames, _spread(frames, rng), strict=True):
        if len(ground) == len(frames) == 1:  # one above one: straight above
            left, _, right, _ = ground[0].box
            x = (left + right - frame.width) // 2 + rng.randint(-24, 24)
            x = min(max(x, 3), SIZE - 3 - frame.width)
        y = rng.randint(5, max(5, lowest - frame.height - 2))
        things.append(frame.at(x, y, rng))
    return things


def _spread(
    frames: list[_Frame], rng: Random, edge: int = 3, gap: int = 4
) -> list[int]:
    """The left edges of a row of frames that do not touch, in pixels."""
    widths = [frame.width for frame in frames]
    free = SIZE - 2 * edge - gap * (len(widths) - 1) - sum(widths)
    shifts = sorted(rng.randint(0, free) for _ in widths)
    return [
        edge + shift + gap * i + sum(widths[:i])
        for i, shift in enumerate(shifts)
    ]


# Drawing it


def draw_scene(scene: Scene) -> Image.Image:
    """Draw a scene: RGB, 256 x 256 pixels, the same for the same scene."""
    afloat = scene.setting == "water"
    canvas = paint_setting(scene.setting, scene.look)
    for thing in scene.things:
        if not KINDS[thing.name].flies and not afloat:
            _draw_shadow(canvas, thing)
    image = canvas.reduce(CANVAS // SIZE)
    # What stands lower is nearer, so it is pasted later.
    for thing in sorted(scene.things, key=lambda thing: thing.box[3]):
        x0, y0, x1, y1 = thing.box
        picture = sprite(thing.name, max(x1 - x0, y1 - y0), thing.flipped)
        if afloat and not KINDS[thing.name].flies:
            picture = _sink(picture)
        image.paste(picture, (x0, y0), mask=picture)
    return image


def _draw_shadow(canvas: Image.Image, thing: Thing) -> None:
    draw = ImageDraw.Draw(canvas, "RGBA")
    x0, _, x1, base = (CANVAS // SIZE * edge for edge in thing.box)
    for inset in (0, 6):  # an ellipse inside another looks soft
        top, bottom = base - 14 + inset / 2, base + 8 - inset / 2
        box = x0 + inset, top, x1 - 1 - inset, bottom
        draw.ellipse(box, (20, 30, 50, 38))


def _sink(picture: Image.Image) -> Image.Image:
    """Return a copy whose lowest part fades into the water."""
    width, height = picture.size
    deep = 0, round(0.84 * height), width, height
    fade = Image.linear_gradient("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    fade = fade.resize((width, height - deep[1]))
    alpha = picture.getchannel("A")
    alpha.paste(ImageChops.multiply(alpha.crop(deep), fade), deep)
    picture = picture.copy()
    picture.putalpha(alpha)
    return picture


# Describing it


def sentence(scene: Scene, rng: Random) -> str:
    """Say one true sentence, with capital and full stop, in words from `rng`.

    Every kind of thing in the scene is named, and so is the place.
    """
    groups = scene.groups
    kinds = [KINDS[group[0].name] for group in groups]
    layout = layout_of(kinds)
    if layout == "above":  # its templates begin with what flies
        groups, kinds = groups[::-1], kinds[::-1]
    places = SKIES if layout == "alone" and kinds[0].flies else PLACES
    facts = {"place": choose(places[scene.setting], rng)}
    for letter, group, kind in zip("abc", groups, kinds, strict=False):
        facts[letter] = _noun_phrase(group, rng)
        facts[f"{letter}_doing"] = kind.doing
        facts[f"{letter}_is"] = "is" if len(group) == 1 else "are"
    text = choose(TEMPLATES[layout], rng).format(**facts)
    return text[0].upper() + text[1:] + "."


def layout_of(kinds: list[Kind]) -> str:
    """The key of `TEMPLATES` for these kinds; only the last may fly."""
    if len(kinds) > 1 and kinds[-1].flies:
        return "above" if len(kinds) == 2 else "above two"
    return ("alone", "beside", "three")[len(kinds) - 1]


def choose(options: tuple[str, ...], rng: Random) -> str:
    """Choose the first most often, the second half as often, and so on."""
    weights = [1 / rank for rank in range(1, len(options) + 1)]
    return rng.choices(options, weights)[0]


def _noun_phrase(group: list[Thing], rng: Random) -> str:
    """Say "a small dog", "an elephant" or "two sheep"."""
    name, size = group[0].name, ""
    if rng.random() < 0.5:
        size = choose(SIZE_WORDS[group[0].size], rng)
    if len(group) > 1:
        words = ("two", "three")[len(group) - 2], size, PLURALS[name]
    else:
        if rng.random() < 0.25:
            name = SYNONYMS.get(name, name)
        words = "an" if (size or name)[0] in "aeiou" else "a", size, name
    return " ".join(word for word in words if word)


def tokenise(text: str) -> list[str]:
    """Split a sentence into lower-case words, without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def describe(scene: Scene, rng: Random) -> list[str]:
    """Write a new caption of a scene, as lower-case tokens."""
    return tokenise(sentence(scene, rng))


# A data set of scenes


def scene_with_captions(
    split: str, index: int, seed: int = 0
) -> tuple[Scene, list[str]]:
    """Scene `index` of a split, and five different sentences about it.

    They depend on the three arguments alone: on neither the process nor how
    many scenes are drawn. (Python seeds a `Random` from a string by SHA-512;
    `hash` would differ from one process to the next.)
    """
    rng = Random(f"{seed} {split} {index}")
    scene = random_scene(rng)
    sentences: list[str] = []
    while len(sentences) < CAPTIONS:
        candidate = sentence(scene, rng)
        if candidate not in sentences:
            sentences.append(candidate)
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
    """Write the toy world as a data set, in the files that Flickr8k comes in.

    A rerun writes the same bytes. Files appear whole or not at all, the JSON
    last.

    Args:
        folder: gets `images/*.png`; `dataset_scenes.json` in Karpathy's format;
            and `objects_scenes.json`, which lists for each file name the
            objects, each with its `name`, its `box` (x0, y0, x1, y1 in pixels)
            and the `words` that can name it.
        train, val, test: scenes in each split.
        seed: another seed gives another data set.
        progress: show a progress bar on a terminal.

    Returns:
        The path of `dataset_scenes.json`.

    Raises:
        InputError: if the disk has too little room.
    """
    folder = Path(folder)
    counts = {"train": train, "val": val, "test": test}
    keys = [(split, i) for split, count in counts.items() for i in range(count)]
    require_free_space(folder, 100_000 * len(keys))
    images, objects = [], {}
    bar = tqdm(keys, unit="scene", disable=None if progress else True)
    for imgid, (split, index) in enumerate(bar):
        scene, sentences = scene_with_captions(split, index, seed)
        filename = f"{split}_{index:05d}.png"
        with atomic_file(folder / "images" / filename) as temporary:
            draw_scene(scene).save(temporary, compress_level=1)
        images.append(_karpathy_entry(filename, imgid, split, sentences))
        objects[filename] = _answer_sheet(scene)
    write_json(folder / "objects_scenes.json", objects)
    path = folder / "dataset_scenes.json"
    write_json(path, {"dataset": "scenes", "images": images})
    return path


def _karpathy_entry(
    filename: str, imgid: int, split: str, sentences: list[str]
) -> dict:
    """One image of a Karpathy JSON."""
    sentids = [CAPTIONS * imgid + n for n in range(len(sentences))]
    return {
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


def _answer_sheet(scene: Scene) -> list[dict]:
    """Where each object is, and the words that can name it."""
    return [
        {
            "name": thing.name,
            "box": list(thing.box),
            "words": KINDS[thing.name].words,
        }
        for thing in scene.things
    ]
