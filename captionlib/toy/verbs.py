"""A toy world in which animals do something, for a project of the book.

Only posture, height and direction tell what an animal does. Two verbs, jumping
and landing, are drawn alike: which of them it is, a single picture can't show.
"""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from captionlib.toy.scenery import CANVAS, paint_setting
from captionlib.toy.scenes import (
    CAPTIONS,
    SIZE,
    Scene,
    Thing,
    choose,
    sprite,
)
from captionlib.toy.words import PLACES

__all__ = ["ACTORS", "VERBS", "Actor", "draw_scene", "scene_with_captions"]

VERBS = tuple(
    "standing digging tumbling jumping landing arriving leaving".split()
)
# Their sprites are seen from the side, and look to the left.
ACTORS = tuple(
    "cat rabbit cow sheep duck tiger dinosaur camel turtle penguin".split()
) + ("horse", "giraffe")
SETTINGS = ("meadow", "beach", "snow", "street", "desert")
AIRBORNE = ("tumbling", "jumping", "landing")
TEMPLATES = (
    "{actor} {doing} {place}",
    "{actor} is {doing} {place}",
    "{place} {actor} is {doing}",
    "there is {actor} {doing} {place}",
)


@dataclass(frozen=True)
class Actor(Thing):
    """A thing that does something."""

    doing: str  # one of `VERBS`
    corner: tuple[int, int]  # the upper left one, which may be outside


def scene_with_captions(
    split: str, index: int, seed: int = 0
) -> tuple[Scene, list[str]]:
    """Scene `index` of a split, with one actor, and five sentences that say
    what it does."""
    rng = Random(f"verbs {seed} {split} {index}")
    actor = _place(rng.choice(ACTORS), rng.choice(VERBS), rng)
    scene = Scene(rng.choice(SETTINGS), rng.getrandbits(32), (actor,))
    named = ("an " if actor.name[0] in "aeiou" else "a ") + actor.name
    told: list[str] = []
    while len(told) < CAPTIONS:
        text = choose(TEMPLATES, rng).format(
            actor=named,
            doing=actor.doing,
            place=choose(PLACES[scene.setting], rng),
        )
        if text not in told:
            told.append(text)
    return scene, told


def _posture(name: str, doing: str, flipped: bool) -> Image.Image:
    """An actor's picture: upright, nose down, or upside down."""
    turn = {"digging": -65 if flipped else 65, "tumbling": 180}
    picture = sprite(name, 90, flipped)
    picture = picture.rotate(turn.get(doing, 0), expand=True)
    return picture.crop(picture.getbbox())


def _place(name: str, doing: str, rng: Random) -> Actor:
    """Who comes or goes is cut by the picture's edge; others are inside."""
    side, flipped = rng.choice(("left", "right")), rng.random() < 0.5
    if doing in ("arriving", "leaving"):  # turned inwards or outwards
        flipped = (side == "left") == (doing == "arriving")
        x = -rng.randint(12, 24)
    else:
        x = rng.randint(8, 80)
    width, height = _posture(name, doing, flipped).size
    bottom = rng.randint(232, 247)
    if doing in AIRBORNE:
        bottom -= rng.randint(60, 90)
    x = x if side == "left" else SIZE - width - x
    corner = x, bottom - height
    box = max(x, 0), bottom - height, min(x + width, SIZE), bottom
    return Actor(name, "", box, flipped, doing, corner)


def draw_scene(scene: Scene) -> Image.Image:
    """Draw a scene with actors: RGB, 256 x 256 pixels."""
    canvas = paint_setting(scene.setting, scene.look)
    brush = ImageDraw.Draw(canvas, "RGBA")
    scale = CANVAS // SIZE
    for actor in scene.things:
        x0, _, x1, bottom = (scale * edge for edge in actor.box)
        ground = scale * 240 if actor.doing in AIRBORNE else bottom
        brush.ellipse((x0, ground - 12, x1, ground + 6), (20, 30, 50, 76))
    image = canvas.reduce(scale)
    for actor in scene.things:
        picture = _posture(actor.name, actor.doing, actor.flipped)
        image.paste(picture, actor.corner, mask=picture)
    return image
