"""Chapter 01, the data pipeline."""

import numbers
import operator
from collections import Counter

import numpy as np

from captionlib.exercises.answers import (
    Wrong,
    call,
    compare,
    describe,
    items,
    number,
    parts,
    quantity,
    tensor,
    trusted,
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
            (
                4,
                'the length of "a dog jumps" is 4, and should be 5: <start>, '
                "three words, the unknown one among them, and <end>",
            ),
            (
                6,
                "the length counts the padding too; it should say where the "
                "caption ends",
            ),
        ],
        what="the length",
    )
    long = "a dog runs a dog runs"
    words, length = run(long.split())
    if len(words) != 6:
        raise Wrong(
            f"a caption of six words, cut to max_len = 4, has {len(words)} ids "
            "and not 4 + 2"
        )
    if "<end>" not in words:
        raise Wrong(
            f"a caption that had to be cut ends in {words[-1]} and has lost its "
            "<end>"
        )
    expected = ["<start>", "a", "dog", "runs", "a", "<end>"]
    compare(
        words,
        expected,
        otherwise=f'with max_len = 4, "{long}" becomes "{" ".join(words)}" and '
        f'not "{" ".join(expected)}"',
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
    first = ["dog", "a", "TV", "<end>", "<unk>", "<start>", "<pad>"]
    first = dict(zip(first, range(7), strict=True))
    for words, word_map, max_len in (
        ("a cat", WORD_MAP, 5),
        ("dog a dog runs", WORD_MAP, 4),
        ("a cow runs", other, 1),
        ("", other, 3),
        ("the dog runs a lot", other, 7),
        ("a dog", first, 4),
        ("A dog sees a Dog on TV", first, 8),
    ):
        given = words.split(), word_map, max_len
        _check_encoded(call(encode, *given), right(*given), words, *given[1:])
    return "every caption gets as many ids, and every one its <end>."


def _check_encoded(
    result, right: tuple, words: str, word_map: dict, max_len: int
) -> None:
    """Raise `Wrong` unless ids and length are right; it shows them as words."""
    ids, length = parts(result, "the ids", "the length")
    ids = items(ids, "the list of ids")
    names = {i: word for word, i in word_map.items()}
    got = " ".join(str(names.get(i, i)) for i in ids)
    wanted = " ".join(names[i] for i in right[0])
    where = f'"{words}" with max_len = {max_len} and the map {word_map}'
    if got != wanted:
        raise Wrong(f'{where} becomes "{got}", expected "{wanted}"')
    compare(number(length), right[1], what=f"the length of {where}")


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
    dark = np.random.default_rng(2).integers(0, 2, (3, 4, 5), np.uint8)
    compare(
        values(dark),
        right(dark / 255),
        [
            (
                right(dark),
                "an image that is nearly black, with pixels of 0 and 1, was not "
                "divided by 255: uint8 pixels always go from 0 to 255",
            )
        ],
        what="an image that is nearly black, with pixels of 0 and 1,",
    )
    return "scaled once, colour by colour."


def exercise_3(mended) -> str:
    """Two faults in a word map and its rows."""
    drawn = (
        (["a dog runs", "a dog sits", "a cat sees a dog", "it"], 2),
        (["the red car", "the car", "the red bus stops", "the end"], 3),
        (["one bird", "two birds fly over one tree"], 1),
        (["snow snow snow", "rain rain", "sun"], 2),
        (["a b c"], 2),
        (["A man has a TV", "The TV", "The A team on TV"], 2),
    )
    for sentences, least in drawn:
        captions = [sentence.split() for sentence in sentences]
        where = f"(called with {sentences!r} and {least})"
        try:
            _check_rows(call(mended, captions, least), captions, least)
        except Wrong as wrong:
            raise Wrong(f"{wrong} {where}") from None
    return "0 is padding and nothing else, and a rare word is a word, too."


def _check_rows(result, captions: list[list[str]], least: int) -> None:
    """Raise `Wrong` unless the rows, read by the word map, are right."""
    word_map, rows = parts(result, "the word map", "the rows")
    if isinstance(word_map, dict):  # a map may do without the padding
        word_map = {"<pad>": 0, **word_map}
    counts = Counter(word for words in captions for word in words)
    kept = {word for word, n in counts.items() if n >= least}
    _check_word_map(word_map, kept, counts)
    shape = len(captions), max(map(len, captions)) + 2
    rows = tensor(rows, shape, "the array of rows", "int").tolist()
    names = {i: word for word, i in word_map.items()}
    for words, row in zip(captions, rows, strict=True):
        known = [word if word in kept else "<unk>" for word in words]
        right = ["<start>", *known, "<end>"]
        right += ["<pad>"] * (shape[1] - len(right))
        got = [names.get(i, f"the unknown id {i}") for i in row]
        said = f'"{" ".join(words)}" becomes "{" ".join(got)}"'
        rare = [i for i, word in enumerate(right) if word == "<unk>"]
        if any(got[i] == "<pad>" for i in rare):
            raise Wrong(
                f"{said}: a rare word has become padding, which the loss "
                "leaves out"
            )
        compare(got, right, otherwise=f"{said}, which is not right")


def _check_word_map(word_map, kept: set[str], counts: Counter) -> None:
    """Raise `Wrong` unless it numbers the words to keep, and four more."""
    if not isinstance(word_map, dict):
        raise Wrong(
            f"the word map should be a dictionary, but is {describe(word_map)}"
        )
    for key, value in word_map.items():
        if not isinstance(key, str) or not isinstance(value, numbers.Integral):
            raise Wrong(
                f"its entry {str(key)[:20]!r}: {str(value)[:20]} is not a "
                "word with its id"
            )
    special = {"<pad>", "<unk>", "<start>", "<end>"}
    ids = {i: word for word, i in word_map.items()}
    if word_map["<pad>"] == 0 and ids[0] != "<pad>" or ids.get(0) in kept:
        raise Wrong(
            f"{ids[0]!r} has the id 0, which the loss leaves out as padding: "
            "the model never learns to say it"
        )
    if missing := special - word_map.keys():
        raise Wrong(f"{' and '.join(sorted(missing))} should have an id, too")
    if word_map["<pad>"] != 0:
        raise Wrong(
            f"<pad> has the id {word_map['<pad>']}, but it is 0 that the loss "
            "leaves out"
        )
    got = word_map.keys() - special
    for word in sorted(got ^ kept):
        times = counts[word]
        raise Wrong(
            f"{word!r} is {'missing from' if word in kept else 'in'} the word "
            f"map, and it occurs {'only ' * (word not in kept)}"
            f"{'once' if times == 1 else f'{times} times'}"
        )
    if sorted(ids) != list(range(len(word_map))):
        raise Wrong(
            f"the ids of {len(word_map)} words are "
            f"{sorted(word_map.values())}: each from 0 on should belong to "
            "one word"
        )


def exercise_4(trust) -> str:
    """A test that tells wrong versions of `image_of` from right ones."""
    tried = set()

    def watched(version):
        """The version, for captions and images that there are."""

        def image_of(i, n):
            for name, value, least in (("i", i, 0), ("n", n, 1)):
                try:
                    whole = operator.index(value)
                except TypeError:
                    raise Wrong(
                        f"your test calls `image_of` with {describe(value)} as "
                        f"{name}, which is one whole number"
                    ) from None
                if not least <= whole < 10**9:
                    raise Wrong(
                        f"your test calls `image_of` with {name} = {whole}; no "
                        "data set has that: i is 0 or more, n is 1 or more"
                    )
            tried.add(operator.index(n))
            return version(i, n)

        return image_of

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
        "(i + 1) // n - 1": lambda i, n: (i + 1) // n - 1,
        "i // 5": lambda i, n: i // 5,
        "i // 2 // max(n // 2, 1)": lambda i, n: i // 2 // max(n // 2, 1),
        "i // (n + 1)": lambda i, n: i // (n + 1),
        "min(i // n, 3)": lambda i, n: min(i // n, 3),
    }
    for code, version in right.items():
        if not trusted(trust, watched(version)):
            raise Wrong(
                f"your test refuses `{code}`, which is right for every i and n "
                "that a data set can have"
            )
    if len(tried) == 1:  # a version that is right for this number alone
        (only,) = tried
        wrong = {f"i // {only}": lambda i, n: i // only, **wrong}
    missed = [
        code
        for code, version in wrong.items()
        if trusted(trust, watched(version))
    ]
    if missed:
        others = f", and {len(missed) - 1} more" * (len(missed) > 1)
        raise Wrong(
            f"a version that returns `{missed[0]}` passes your test{others}: "
            "for which i and n is it wrong?"
        )
    return (
        f"{len(wrong)} wrong versions caught, {len(right)} right ones passed."
    )


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
