"""Chapter 01, the data pipeline."""

import numbers

import numpy as np

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    describe,
    items,
    number,
    parts,
    quantity,
    tensor,
)

WORD_MAP = {
    "<pad>": 0,
    "a": 3,
    "dog": 1,
    "runs": 2,
    "<unk>": 6,
    "<start>": 4,
    "<end>": 5,
}
NAMES = {i: word for word, i in WORD_MAP.items()}


def exercise_1(encode) -> str:
    """A caption becomes numbers."""

    def run(tokens):
        result = call(encode, tokens, WORD_MAP, 4)
        ids, length = parts(result, "the ids", "the length")
        ids = items(ids, "the list of ids")
        length = number(length, "the length", whole=True)
        for each in ids:
            if not isinstance(each, numbers.Integral) or each not in NAMES:
                raise Wrong(
                    f"{str(each)[:20]!r} among the ids is not an id of the "
                    "word map"
                )
        return [NAMES[each] for each in ids], length

    words, length = run(["a", "dog", "jumps"])
    said = " ".join(words)
    if words[:1] != ["<start>"]:
        raise Wrong(
            f'"a dog jumps" becomes "{said}": every caption begins with <start>'
        )
    if "<end>" not in words:
        raise Wrong(
            f'"a dog jumps" becomes "{said}": <end> is missing, so no model could stop'
        )
    if "<unk>" not in words:
        raise Wrong(
            f'"a dog jumps" becomes "{said}": the map lacks "jumps", which should become <unk>'
        )
    if "<pad>" in words[: words.index("<end>")]:
        raise Wrong(
            f'"a dog jumps" becomes "{said}": <end> comes before the padding'
        )
    if len(words) != 6:
        raise Wrong(
            f"with max_len = 4 there are {len(words)} ids and not 4 + 2, for "
            "four words, <start> and <end>"
        )
    expected = ["<start>", "a", "dog", "<unk>", "<end>", "<pad>"]
    compare(words, expected, what='what "a dog jumps" becomes')
    compare(
        length,
        5,
        [
            (3, "the length counts the words alone, without <start> and <end>"),
            (4, "the length leaves one of <start> and <end> out: both count"),
            (
                6,
                "the length counts the padding too; it should say where the "
                "caption ends",
            ),
        ],
        what="the length",
    )
    words, length = run("a dog runs a dog runs".split())
    if len(words) != 6:
        raise Wrong(
            f"a caption of six words, cut to max_len = 4, has {len(words)} ids "
            "and not 4 + 2"
        )
    if words[-1] != "<end>":
        raise Wrong(
            f"a caption that had to be cut ends in {words[-1]} and has lost its "
            "<end>"
        )
    compare(
        words,
        ["<start>", "a", "dog", "runs", "a", "<end>"],
        what="a caption that was cut",
    )
    compare(
        length,
        6,
        [(8, "a caption that was cut is as long as what is left of it")],
        what="the length of a caption that was cut",
    )

    def right(tokens, word_map, max_len):
        said = [word if word in word_map else "<unk>" for word in tokens]
        said = ["<start>", *said[:max_len], "<end>"]
        padding = ["<pad>"] * (max_len + 2 - len(said))
        return [word_map[word] for word in said + padding], len(said)

    other = dict(zip(reversed(WORD_MAP), range(len(WORD_MAP)), strict=True))
    also(
        encode,
        right,
        (["a", "cat"], WORD_MAP, 5),
        ("dog a dog runs".split(), WORD_MAP, 4),
        ("a cow runs".split(), other, 1),
        ([], other, 3),
        ("the dog runs a lot".split(), other, 7),
        what="the answer",
    )
    return "every caption gets as many ids, and every one its <end>."


def exercise_2(normalise) -> str:
    """Normalise, once."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (3, 4, 3), dtype=np.uint8
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def right(pixels, mean=mean, std=std):
        axes = (3, 1, 1)
        return (pixels - mean.reshape(axes)) / std.reshape(axes)

    def values(of):
        shape = tuple(of.shape)
        turned = (*shape[1:], shape[0])
        swapped = {
            turned: "the channels went to the end; they should stay in front"
        }
        return (
            tensor(call(normalise, of), shape, "the image", known=swapped)
            .double()
            .numpy()
        )

    got = values(pixels)
    with np.errstate(all="ignore"):
        compare(
            got,
            right(pixels / 255),
            [
                (
                    right(pixels),
                    "these pixels still went from 0 to 255 when the mean was "
                    "subtracted: it is meant for pixels from 0 to 1",
                ),
                (
                    right(pixels / 255 / 255),
                    "divided by 255 twice: all pictures now look the same to "
                    "the network",
                ),
                (
                    (pixels / 255 - mean) / std,
                    "a picture of three columns shows it: mean and std are "
                    "applied to the columns, not the colours. Broadcasting "
                    "aligns shapes from the last axis",
                ),
                (
                    right(pixels // 255),
                    "// drops the decimals, and with them nearly everything",
                ),
                (
                    right(pixels / 255, std=std**2),
                    "this divides by the variance; std is its root",
                ),
                (
                    right(pixels / 255, std=np.ones(3)),
                    "the mean is subtracted, but the pixels are still on their "
                    "old scale: divide by std",
                ),
                (
                    right(pixels / 255, mean=np.zeros(3)),
                    "divided by std, but the mean was not subtracted",
                ),
                (
                    pixels / 255,
                    "pixels from 0 to 1 are the first half: now apply mean and "
                    "std",
                ),
                (
                    pixels / 255 - mean.reshape(3, 1, 1) / std.reshape(3, 1, 1),
                    "division comes before subtraction: a bracket is missing "
                    "around the difference",
                ),
            ],
            what="the image",
        )
    for shape in ((3, 4, 5), (3, 3, 3), (3, 1, 2)):
        drawn = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        compare(
            values(drawn),
            right(drawn / 255),
            what=f"an image of shape {shape}",
        )
    return "scaled once, colour by colour."


def exercise_3(build) -> str:
    """Which words does the model know?"""

    def image(split, *captions):
        return {
            "split": split,
            "sentences": [{"tokens": each.split()} for each in captions],
        }

    images = [
        image("train", "a dog runs", "a dog sits", "dog sits"),
        image("restval", "a cat", "the cat"),
        image("val", "a zebra", "zebra zebra", "the cat"),
        image("test", "a yak", "yak yak", "runs"),
    ]
    special = {"<pad>", "<unk>", "<start>", "<end>"}

    def words_of(images, least):
        got = call(build, images, least)
        if not isinstance(got, dict):
            raise Wrong(
                f"the word map should be a dictionary, but is {describe(got)}"
            )
        for key, value in got.items():
            if not isinstance(key, str) or not isinstance(
                value, numbers.Integral
            ):
                raise Wrong(
                    f"its entry {str(key)[:20]!r}: {str(value)[:20]} is not a "
                    "word with its id"
                )
        if missing := special - got.keys():
            raise Wrong(
                f"{' and '.join(sorted(missing))} should have an id, too"
            )
        return got, got.keys() - special

    got, kept = words_of(images, 2)
    if "zebra" in kept or "yak" in kept:
        raise Wrong(
            '"zebra" and "yak" occur only in validation and test captions, which the map must not '
            "know: count train and restval"
        )
    if "dog" not in kept:
        raise Wrong(
            f'"dog" occurs three times in train and is missing: the words are {sorted(kept)}'
        )
    if not {"sits", "cat"} & kept:
        raise Wrong(
            'min_word_freq is 2, and "sits" and "cat", which occur twice, are missing: at least is '
            ">=, not >"
        )
    if "cat" not in kept:
        raise Wrong(
            '"cat" occurs twice in restval, which people train on: count that split, too'
        )
    if {"runs", "the"} & kept:
        raise Wrong(
            f"{sorted({'runs', 'the'} & kept)[0]!r} occurs only once in train "
            "and restval, and min_word_freq is 2"
        )
    compare(
        sorted(kept), ["a", "cat", "dog", "sits"], what="the list of words kept"
    )

    def check_ids(got):
        if got["<pad>"] != 0:
            raise Wrong(
                f"<pad> has the id {got['<pad>']}: it must be 0, so that empty "
                "rows are padding"
            )
        if len(set(got.values())) < len(got):
            raise Wrong("two words share an id")
        if sorted(got.values()) != list(range(len(got))):
            raise Wrong(
                f"the ids of {len(got)} words are {sorted(got.values())}: "
                "there is a gap, and each id is a row of the embedding"
            )

    check_ids(got)
    if not words_of([image("train", "dog dog dog", "cat")], 3)[1]:
        raise Wrong(
            '"dog dog dog" has the word dog three times: count occurrences, not captions'
        )
    compare(
        sorted(words_of([image("train", "dog dog dog", "cat")], 3)[1]),
        ["dog"],
        what='the list of words kept of "dog dog dog" and "cat" for 3',
    )
    for least, expected in (
        (1, {"a", "dog", "runs", "sits", "cat", "the"}),
        (3, {"a", "dog"}),
        (4, set()),
    ):
        got, kept = words_of(images, least)
        compare(
            sorted(kept),
            sorted(expected),
            what=f"the list of words kept for min_word_freq = {least}",
        )
        check_ids(got)
    return "the frequent words, four special ones, and nothing learnt from the test captions."


def exercise_4(trust) -> str:
    """A test that tells wrong versions of `image_of` from right ones."""
    right = {
        "i // n": lambda i, n: i // n,
        "int(i / n)": lambda i, n: int(i / n),
        "divmod(i, n)[0]": lambda i, n: divmod(i, n)[0],
        "(i - i % n) // n": lambda i, n: (i - i % n) // n,
    }
    wrong = {
        "i / n": lambda i, n: i / n,
        "i % n": lambda i, n: i % n,
        "round(i / n)": lambda i, n: round(i / n),
        "(i + n - 1) // n": lambda i, n: (i + n - 1) // n,
        "(i + 1) // n": lambda i, n: (i + 1) // n,
        "i // n + 1": lambda i, n: i // n + 1,
        "i // 5": lambda i, n: i // 5,
        "i // (n + 1)": lambda i, n: i // (n + 1),
        "min(i // n, 3)": lambda i, n: min(i // n, 3),
    }
    for code, version in right.items():
        if not _trusted(trust, version):
            raise Wrong(
                f"your test refuses `{code}`, which is right for every i and n"
            )
    missed = [c for c, version in wrong.items() if _trusted(trust, version)]
    if missed:
        others = f", and {len(missed) - 1} more" * (len(missed) > 1)
        raise Wrong(
            f"a version that returns `{missed[0]}` passes your test{others}: "
            "for which i and n is it wrong?"
        )
    return (
        f"{len(wrong)} wrong versions caught, {len(right)} right ones passed."
    )


def _trusted(trust, version) -> bool:
    """Whether a test, which asserts or returns True or False, lets pass."""

    def run(version) -> bool:
        try:
            verdict = trust(version)
        except AssertionError:
            return False
        return True if verdict is None else verdict

    verdict = call(run if callable(trust) else trust, version)
    if not isinstance(verdict, (bool, np.bool_)):
        raise Wrong(
            "your test should assert, or return True or False; it returned "
            f"{describe(verdict)}"
        )
    return bool(verdict)


def exercise_5(as_int64, as_int16) -> str:
    """How much memory do captions take?"""
    images, columns = 113_287, 52
    for value, size, name in ((as_int64, 8, "int64"), (as_int16, 2, "int16")):
        right = images * 5 * columns * size / 1e6
        quantity(
            value,
            right,
            [
                (
                    right * 8,
                    f"{name} has {8 * size} bits, and a byte has eight of them",
                ),
                (
                    right * 50 / 52,
                    f"{name}: a caption of 50 words has 52 ids, with <start> "
                    "and <end>",
                ),
                (right / 5, f"{name}: an image has five captions"),
                (
                    right * 1e6,
                    f"{name}: these are bytes; a megabyte is a million of them",
                ),
                (right / 1e3, f"{name}: these are gigabytes"),
                (
                    right * 1e6 / 2**20,
                    f"{name}: divided by 2**20; here a megabyte is 10**6 bytes",
                ),
                (
                    right / size,
                    f"{name}: this counts the ids, each of which takes {size} "
                    "bytes",
                ),
                (right / size / 8, f"{name}: this takes a bit for each id"),
            ],
            what=f"the size as {name}",
        )
    return "int16 would be enough even for COCO; we keep int64, PyTorch's type for indices."
