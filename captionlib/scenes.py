"""A toy world.

Chapter 00 of the book, notebooks/00_toy_world.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageOps
from tqdm.auto import tqdm

from captionlib.files import ASSETS, atomic_file, require_free_space, write_json
from captionlib.scenery import CANVAS, SETTINGS, paint_setting

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


SIZE = 256  # pixels along each side of a scene


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

    setting: str  # one of `SETTINGS`
    look: int  # seed of the setting's hills, clouds and light
    things: tuple[Thing, ...]  # on the ground from left to right, then in the air


def draw_scene(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 256 x 256 pixels, the same for the same scene."""
    canvas = paint_setting(scene.setting, scene.look)
    draw = ImageDraw.Draw(canvas, "RGBA")
    for thing in scene.things:
        if not KINDS[thing.name].flies and scene.setting != "water":
            x0, _, x1, base = (2 * edge for edge in thing.box)
            for spread in (0, 6):  # two ellipses, one inside the other: a soft shadow
                draw.ellipse(
                    (x0 + spread, base - 14 + spread / 2, x1 - spread, base + 8 - spread / 2),
                    (20, 30, 50, 38),
                )
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


SIZE_WORDS = {"small": ("small", "little"), "": ("",), "big": ("big", "large")}
LENGTHS = {"small": 64, "": 90, "big": 122}  # pixels along the longer side
CROWDED = 76  # where three share the picture, nobody is small or big

# How many of each group stand in a scene, and how often.
COUNTS = {(1,): 28, (1, 1): 40, (1, 1, 1): 12, (2,): 8, (3,): 4, (1, 2): 4, (2, 1): 4}


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
    ceiling = min(tops, default=160)
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
        rarity = [1 / len(kind.settings) for kind in fitting]  # every object about as often
        chosen.append(rng.choices(fitting, rarity)[0])
    return chosen


def _spread(widths: list[int], rng: Random, edge: int = 3, gap: int = 4) -> list[int]:
    """Left edges of a row of objects, the free room between them shared out at random."""
    free = SIZE - 2 * edge - gap * (len(widths) - 1) - sum(widths)
    shifts = sorted(rng.randint(0, free) for _ in widths)
    return [edge + shift + gap * index + sum(widths[:index]) for index, shift in enumerate(shifts)]


PLACES = {  # what is said first is said most
    "meadow": ("on the grass", "in a meadow", "in a green field", "in the country"),
    "beach": ("on the beach", "on the sand", "by the sea", "at the seaside"),
    "snow": ("in the snow", "in winter", "on a snowy day", "in the cold"),
    "street": ("on the street", "in the city", "on the road", "in a town"),
    "desert": ("in the desert", "on the sand", "on the dunes", "in the heat"),
    "night": ("at night", "under the stars", "under the moon", "in the dark"),
    "water": ("on the water", "at sea", "on the waves", "in the blue sea"),
    "room": ("in a room", "on the floor", "at home", "indoors"),
}
SKIES = {  # the same, where nothing stands on the ground
    "meadow": ("over the grass", "over a meadow", "in the sky", "in the country"),
    "beach": ("over the beach", "over the sand", "by the sea", "at the seaside"),
    "snow": ("over the snow", "in winter", "on a snowy day", "in the cold"),
    "street": ("over the street", "over the city", "in the sky", "over a town"),
    "desert": ("over the desert", "over the sand", "over the dunes", "in the heat"),
    "night": ("at night", "under the stars", "in the night sky", "in the dark"),
    "water": ("over the water", "at sea", "over the waves", "over the blue sea"),
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
    facts = {
        "place": _pick(
            (SKIES if kinds[0].flies and layout == "alone" else PLACES)[scene.setting], rng
        )
    }
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
    size = _pick(SIZE_WORDS[group[0].size], rng) if rng.random() < 0.5 else ""
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
