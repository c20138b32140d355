"""The vocabulary of the toy world: what there is, and how people say so.

In every list of phrases the first is said most often, the second half as often,
the third a third as often, and so on.
"""

__all__ = [
    "GROUPS",
    "PLACES",
    "PLURALS",
    "SIZE_WORDS",
    "SKIES",
    "SYNONYMS",
    "TEMPLATES",
]

DRY = "meadow beach snow street desert night"

# What a thing does, in which settings, and its names ("_" stands for a space).
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

PLURALS = {  # the things that come in twos and threes
    "apple": "apples",
    "balloon": "balloons",
    "boat": "boats",
    "butterfly": "butterflies",
    "camel": "camels",
    "cat": "cats",
    "cow": "cows",
    "dog": "dogs",
    "dolphin": "dolphins",
    "duck": "ducks",
    "gift": "gifts",
    "horse": "horses",
    "kite": "kites",
    "penguin": "penguins",
    "rabbit": "rabbits",
    "sheep": "sheep",
    "swan": "swans",
    "tree": "trees",
}
SYNONYMS = {
    "airplane": "plane",
    "bicycle": "bike",
    "gift": "present",
    "rabbit": "bunny",
}
SIZE_WORDS = {"small": ("small", "little"), "": ("",), "big": ("big", "large")}

PLACES = {
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
SKIES = {  # for a scene in which nothing stands on the ground
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
