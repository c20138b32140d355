"""The toy world, told in German, for a project of the book.

The scenes are those of `captionlib.toy.scenes`. German nouns have a gender, and
articles and adjectives agree with it, with number, and with case: *ein kleiner
Hund*, but *neben einem kleinen Hund*.
"""

from random import Random

from captionlib.toy.scenes import (
    CAPTIONS,
    KINDS,
    Kind,
    Scene,
    Thing,
    choose,
    layout_of,
    random_scene,
)

__all__ = ["ENDINGS", "NOUNS", "scene_with_captions"]

# Gender, singular, and the plural of what comes in twos and threes.
_NOUNS = """
airplane n Flugzeug; apple m Apfel Äpfel; ball m Ball; balloon m Ballon Ballons
bicycle n Fahrrad; boat n Boot Boote; bus m Bus; cactus m Kaktus; cake f Torte
butterfly m Schmetterling Schmetterlinge; camel n Kamel Kamele; car n Auto
castle n Schloss; cat f Katze Katzen; chair m Stuhl; cow f Kuh Kühe
dancer f Tänzerin; dinosaur m Dinosaurier; dog m Hund Hunde; duck f Ente Enten
dolphin m Delfin Delfine; elephant m Elefant; gift n Geschenk Geschenke
giraffe f Giraffe; horse n Pferd Pferde; house n Haus; kite m Drachen Drachen
man m Mann; mushroom m Pilz; palm_tree f Palme; penguin m Pinguin Pinguine
pig n Schwein; rabbit n Kaninchen Kaninchen; rocket f Rakete; runner m Läufer
sheep n Schaf Schafe; snowman m Schneemann; sofa n Sofa; sunflower f Sonnenblume
swan m Schwan Schwäne; teddy_bear m Teddybär; tent n Zelt; tiger m Tiger
train m Zug; tree m Baum Bäume; turtle f Schildkröte; umbrella m Regenschirm
whale m Wal; woman f Frau
"""
NOUNS = {
    name.replace("_", " "): (gender, singular, *plural)
    for entry in _NOUNS.strip().replace("\n", "; ").split("; ")
    for name, gender, singular, *plural in [entry.split()]
}
# Of "ein" and of an adjective after it, by case and gender ("p": plural).
ENDINGS = {
    "nominative": {
        "m": ("", "er"),
        "f": ("e", "e"),
        "n": ("", "es"),
        "p": ("", "e"),
    },
    "dative": {
        "m": ("em", "en"),
        "f": ("er", "en"),
        "n": ("em", "en"),
        "p": ("", "en"),
    },
}
WEAK = {"Elefant": "Elefanten"}  # other nouns have no ending in the dative
DOING = {  # one, several
    "standing": ("steht", "stehen"),
    "running": ("läuft", "laufen"),
    "dancing": ("tanzt", "tanzen"),
    "parked": ("parkt", "parken"),
    "waiting": ("wartet", "warten"),
    "growing": ("wächst", "wachsen"),
    "lying": ("liegt", "liegen"),
    "sailing": ("segelt", "segeln"),
    "swimming": ("schwimmt", "schwimmen"),
    "flying": ("fliegt", "fliegen"),
}
SIZE_WORDS = {
    "small": ("klein", "winzig"),
    "": ("",),
    "big": ("groß", "riesig"),
}
PLACES = {
    "meadow": ("auf der Wiese", "im Gras", "auf dem Land"),
    "beach": ("am Strand", "auf dem Sand", "am Meer"),
    "snow": ("im Schnee", "im Winter", "in der Kälte"),
    "street": ("auf der Straße", "in der Stadt", "im Dorf"),
    "desert": ("in der Wüste", "auf dem Sand", "auf den Dünen"),
    "night": ("in der Nacht", "unter den Sternen", "im Dunkeln"),
    "water": ("auf dem Wasser", "auf See", "auf den Wellen"),
    "room": ("im Zimmer", "auf dem Boden", "zu Hause"),
}
SKIES = PLACES | {  # where nothing stands on the ground
    "meadow": ("über der Wiese", "über dem Gras", "am Himmel"),
    "beach": ("über dem Strand", "über dem Sand", "am Meer"),
    "snow": ("über dem Schnee", "im Winter", "in der Kälte"),
    "street": ("über der Straße", "über der Stadt", "am Himmel"),
    "desert": ("über der Wüste", "über dem Sand", "über den Dünen"),
    "night": ("in der Nacht", "unter den Sternen", "am Nachthimmel"),
    "water": ("über dem Wasser", "auf See", "über den Wellen"),
    "room": ("im Zimmer", "unter der Decke", "zu Hause"),
}
TEMPLATES = {  # {a} is in the nominative, {a_dat} in the dative
    "alone": (
        "{a} {a_does} {place}",
        "{a} {place}",
        "{place} {a_does} {a}",
        "{a} ganz allein {place}",
        "ein Bild von {a_dat} {place}",
    ),
    "beside": (
        "{a} links von {b_dat} {place}",
        "{b} rechts von {a_dat} {place}",
        "{a} {a_does} links von {b_dat} {place}",
        "{a} und {b} {place}",
        "{a} neben {b_dat} {place}",
        "{place} {b_does} {b} neben {a_dat}",
    ),
    "above": (
        "{a} über {b_dat} {place}",
        "{a} {a_does} über {b_dat} {place}",
        "{b} unter {a_dat} {place}",
        "{b} {b_does} unter {a_dat} {place}",
        "{place} {a_does} {a} über {b_dat}",
    ),
    "three": (
        "{a}, {b} und {c} {place}",
        "{b} zwischen {a_dat} und {c_dat} {place}",
        "{a} neben {b_dat} und {c_dat} {place}",
        "{a} und {b} links von {c_dat} {place}",
        "{place} {b_does} {b} rechts von {a_dat}, mit {c_dat}",
    ),
    "above two": (
        "{c} über {a_dat} und {b_dat} {place}",
        "{a} und {b} unter {c_dat} {place}",
        "{a} neben {b_dat} unter {c_dat} {place}",
        "{place} {c_does} {c} über {a_dat} und {b_dat}",
    ),
}


def scene_with_captions(
    split: str, index: int, seed: int = 0
) -> tuple[Scene, list[str]]:
    """Scene `index` of a split, the same as in English, and five sentences."""
    rng = Random(f"{seed} {split} {index}")
    scene = random_scene(rng)
    told: list[str] = []
    while len(told) < CAPTIONS:
        sentence = _sentence(scene, rng)
        if sentence not in told:
            told.append(sentence)
    return scene, told


def _sentence(scene: Scene, rng: Random) -> str:
    groups = scene.groups
    kinds = [KINDS[group[0].name] for group in groups]
    layout = layout_of(kinds)
    if layout == "above":
        groups, kinds = groups[::-1], kinds[::-1]
    places = SKIES if layout == "alone" and kinds[0].flies else PLACES
    facts = {"place": choose(places[scene.setting], rng)}
    for letter, group, kind in zip("abc", groups, kinds, strict=False):
        facts |= _facts(letter, group, kind, rng)
    text = choose(TEMPLATES[layout], rng).format(**facts)
    return text[0].upper() + text[1:] + "."


def _facts(letter: str, group: list[Thing], kind: Kind, rng: Random) -> dict:
    """Both cases of a noun with its article, and what it does."""
    size = ""
    if rng.random() < 0.5:
        size = choose(SIZE_WORDS[group[0].size], rng)
    does = DOING[kind.doing][len(group) > 1]
    return {
        letter: _noun_phrase(kind, len(group), "nominative", size),
        f"{letter}_dat": _noun_phrase(kind, len(group), "dative", size),
        f"{letter}_does": does,
    }


def _noun_phrase(kind: Kind, count: int, case: str, size: str) -> str:
    """Say "ein kleiner Hund", "einem Elefanten" or "zwei Hunden"."""
    gender, noun, *plural = NOUNS[kind.name]
    article, ending = ENDINGS[case][gender if count == 1 else "p"]
    first = f"ein{article}" if count == 1 else ("zwei", "drei")[count - 2]
    if count > 1:
        noun = plural[0]
    if case == "dative":
        several = count > 1 and noun[-1] not in "ns"
        noun = noun + "n" if several else WEAK.get(noun, noun)
    return " ".join(filter(None, (first, size and size + ending, noun)))
