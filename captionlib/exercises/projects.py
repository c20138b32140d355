"""The projects: verbs, German, two scales, and a race.

Their last milestones judge the captions of whole trainings, on the scenes that
all projects are judged on.
"""

from __future__ import annotations

import math
import random
import re
import unicodedata
from functools import cache

import numpy as np
import torch
from torch import Tensor

from captionlib.exercises.answers import (
    Wrong,
    call,
    compare,
    describe,
    number,
    parts,
    tensor,
    words,
)
from captionlib.metrics import score
from captionlib.toy import german, scenes, verbs

TEST = 200  # scenes that projects are judged on
GENDERS = {
    noun.lower(): gender for gender, noun, *_ in german.NOUNS.values()
} | {"elefanten": "m"}

# What a whole training should reach at least: share of verbs, BLEU-4, BLEU-4.
LEAST_VERBS, LEAST_GERMAN, LEAST_SCALES = 0.5, 35, 40
BOARD = {  # BLEU-4; all but the first were measured for chapters 12 and 15
    "LSTM on 2,000 scenes": 64.1,
    "LSTM: twice as large": 61.2,
    "all parts": 56.4,
    "prefix of 9 tokens": 53.9,
    "Transformer": 52.2,
    "LSTM with attention": 44.9,
    "a thief": 38.4,
}

Pairs = list[tuple[str, str | None]]


# A: verbs


@cache
def verb_facts() -> tuple[list[Pairs], tuple[str, ...], tuple[str, ...]]:
    """Who does what in each test scene; all actors, all verbs."""
    told = [verbs.scene_with_captions("test", i)[0] for i in range(TEST)]
    truth = [[(a.name, a.doing) for a in scene.things] for scene in told]
    return truth, verbs.ACTORS, verbs.VERBS


def who_does_what(caption: list[str], actors, doing) -> Pairs:
    """Each actor that is named, and the first verb between it and the next."""
    at = [i for i, word in enumerate(caption) if word in actors]
    found: Pairs = []
    for start, end in zip(at, [*at[1:], len(caption)], strict=False):
        said = [word for word in caption[start:end] if word in doing]
        found.append((caption[start], said[0] if said else None))
    return found


def verbs_right(captions: list[list[str]]) -> dict[str, float]:
    """Of the actors that are named with a verb, how many have the right one:
    for each verb that is true, and for all of them.
    """
    truth, actors, doing = verb_facts()
    hits: dict[str, list[bool]] = {verb: [] for verb in (*doing, "all")}
    for pairs, caption in zip(truth, captions, strict=False):
        said = dict(who_does_what(caption, actors, doing))
        for actor, verb in pairs:
            if said.get(actor) is not None:
                for name in (verb, "all"):
                    hits[name].append(said[actor] == verb)
    return {verb: sum(of) / max(1, len(of)) for verb, of in hits.items()}


POOL = (
    "ant bee crow dove eel fox gnu hen ibex jay kiwi lynx mole newt owl".split()
)
DOING = "singing hiding eating falling hopping waving".split()
FILL = "a the is on and of that left in".split()


def project_a_1(doings) -> str:
    """Actors and their verbs, in a caption."""
    captions = ["", "a the in", "hiding a fox", "fox", "owl owl singing"]
    captions += ["a singing owl is eating"]
    captions += ["fox the in on and of left eating owl in that the a hopping"]
    for _ in range(8):
        captions.append(
            " ".join(random.choices(POOL[:5] + DOING * 2 + FILL, k=11))
        )
    for text in captions:
        caption, actors = text.split(), [*POOL[:5], "fox", "owl"]
        right = who_does_what(caption, actors, DOING)
        got = call(doings, caption, actors, DOING)
        if not isinstance(got, (list, tuple)):
            raise Wrong(
                f"a list of pairs should come back, not {describe(got)}"
            )
        got = [tuple(parts(pair, "actor", "verb")) for pair in got]
        if got != right:
            raise Wrong(f'in "{text}" you find {got}, expected {right}')
    return "who comes before what: this order is in all captions of this world."


def project_a_2(confusions) -> str:
    """True verbs against those that are said."""
    for count, n in ((3, 6), (5, 14), (2, 1), (4, 0), (2, 24)):
        doing = random.sample(DOING, count)
        truth, said, last = [], [], []
        for _ in range(n):
            actors = random.sample(POOL, 4)
            truth.append([(a, random.choice(doing)) for a in actors[:2]])
            told = [(a, random.choice([*doing, None])) for a in actors[1:]]
            random.shuffle(told)
            told.append((actors[0], random.choice(doing)))
            first = (actors[0], random.choice(doing))
            said.append([first, *told])
            last.append(dict(said[-1]))
            # At its last mention without a verb; and few that are named.
            one, other = doing[0], doing[-1]
            truth += [[("yak", one), ("emu", other)]] * 2
            said += [[("yak", other), ("yak", None)], [("emu", one)]]
            last += [dict(pairs) for pairs in said[-2:]]
        table, turned, firsts = (torch.zeros(count, count) for _ in range(3))
        for pairs, told, final in zip(truth, said, last, strict=True):
            early = dict(reversed(told))
            for actor, verb in pairs:
                i = doing.index(verb)
                if early.get(actor) is not None:
                    firsts[i, doing.index(early[actor])] += 1
                if final.get(actor) is not None:
                    j = doing.index(final[actor])
                    table[i, j] += 1
                    turned[j, i] += 1
        got = call(confusions, truth, said, doing)
        kind = "int" if _whole(got) else "float"
        got = tensor(got, (count, count), "the table", kind).float()
        compare(
            got,
            table,
            [
                (turned, "rows should be what is true, columns what is said"),
                (firsts, "of an actor that is named twice, take the last one"),
            ]
            if n > 1
            else (),
            otherwise=f"for the truth {truth[:1]}, said {said[:1]} and so on, "
            "the table is not right",
        )
    return "the diagonal is what it has learnt, the rest is what it mixes up."


def _whole(value: object) -> bool:
    try:
        return not torch.as_tensor(value).is_floating_point()
    except (TypeError, ValueError, RuntimeError):
        return False


def project_a_3(ceiling) -> str:
    """The best share of right verbs, by someone who sees the looks alone."""
    for looks, n in ((3, 4), (5, 3), (1, 6), (4, 4)):
        counts = torch.randint(1, 30, (looks, n)).float()
        counts[0, n - 1] = 60
        if looks > 3:
            counts[2] = 0  # never seen
        best = counts.max(dim=1).values
        total = counts.sum()
        compare(
            number(call(ceiling, counts)),
            float(best.sum() / total),
            [
                (
                    float(counts.max(dim=0).values.sum() / total),
                    "that takes the best look of each verb; who sees a look "
                    "has to choose a verb",
                ),
                (float(best.sum()), "that is how many are right, not a share"),
                (
                    float((best / counts.sum(dim=1).clamp(min=1)).mean()),
                    "looks that are seen more often count for more",
                ),
                (
                    float(counts.max() / total),
                    "that is the best verb of one look; add those of all",
                ),
            ],
            what=f"the share for counts {counts.int().tolist()}",
        )
    return (
        "no captioner can do better, however large: it is not in the picture."
    )


def _captions(value: object, count: int = TEST) -> list[list[str]]:
    """Check that the value is a caption of each scene."""
    if not isinstance(value, (list, tuple)) or len(value) != count:
        size = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
        raise Wrong(
            f"the captions of all {count} test scenes should come back, each a "
            f"list of words, but this is {describe(value)}{size}"
        )
    return [words(each, "each caption") for each in value]


def project_a_4(captions) -> str:
    """A trained captioner's verbs."""
    right = verbs_right(_captions(captions))
    said = ", ".join(f"{v} {100 * share:.0f}%" for v, share in right.items())
    guess = (right["jumping"] + right["landing"]) / 2
    if right["all"] < LEAST_VERBS:
        raise Wrong(
            f"{said}: less than {100 * LEAST_VERBS:.0f}% of all. Were these "
            "captions written by a captioner of this world, after its training?"
        )
    if guess > 0.7:
        raise Wrong(
            f"{said}. Jumping and landing look alike, so half of them can be "
            "right; were these captions written from the pictures?"
        )
    return f"{said}."


# B: German


def _draw_text() -> str:
    """Words of several alphabets, with capitals, between all kinds of marks."""
    pool = "Über Bäume Straße Öl señor garçon мир Ёж λόγος año naïve Hund"
    marks = [" ", ", ", ". ", "-", " 7 ", "_", "'", "! ", " (", "\n", "2"]
    chosen = random.choices(pool.split(), k=7)
    text = "".join(word + random.choice(marks) for word in chosen)
    return unicodedata.normalize(random.choice(("NFC", "NFD")), text)


def project_b_1(words_of) -> str:
    """Words of any alphabet, however the accents are written."""
    texts = ["", " 7_7 ", unicodedata.normalize("NFD", "Äpfel: süß!")]
    for text in [*texts, *(_draw_text() for _ in range(10))]:
        # Letter by letter.
        whole = unicodedata.normalize("NFC", text).lower()
        spaced = "".join(c if c.isalpha() else " " for c in whole)
        right = spaced.split()
        got = words(call(words_of, text), "the result")
        if got == right:
            continue
        if [unicodedata.normalize("NFC", word) for word in got] == right:
            raise Wrong(
                f"{got} looks right, but some accents are characters of their "
                "own, so that a word has two spellings: "
                "`unicodedata.normalize`"
            )
        if [word.replace("ß", "ss") for word in right] == got:
            raise Wrong("ß should stay: take `lower`, not `casefold`")
        raise Wrong(f"of {text!r} you make {got}, expected {right}")
    return "the same word is now one word, in any alphabet."


def project_b_2(phrase) -> str:
    """Article, adjective and noun, in two cases."""
    nouns = [(noun, gender) for gender, noun, *_ in german.NOUNS.values()]
    tries = [
        (gender, case, adjective)
        for gender in "mfn"
        for case in german.ENDINGS
        for adjective in (random.choice(("rund", "alt", "nass", "blau")), "")
    ]
    random.shuffle(tries)
    for gender, case, adjective in tries:
        noun = random.choice([n for n, g in nouns if g == gender])
        article, ending = german.ENDINGS[case][gender]
        right = [f"ein{article}", adjective and adjective + ending, noun]
        right = " ".join(filter(None, right))
        got = call(phrase, noun, gender, case, adjective)
        if not isinstance(got, str):
            raise Wrong(f"a string should come back, not {describe(got)}")
        if got != right:
            raise Wrong(
                f"in the {case}, {noun!r} ({gender}) with the adjective "
                f"{adjective!r} is {right!r}, but you say {got!r}"
            )
    return "twelve cells of a table are all the grammar this world needs."


def project_b_3(agreement) -> str:
    """Articles that fit their nouns, of all that have one."""
    for size in (1, 5, 12, 0):
        genders = dict(zip(random.sample(POOL, 9), "mfn" * 3, strict=True))
        fits = {"m": ("ein", "einem"), "n": ("ein", "einem")}
        fits["f"] = ("eine", "einer")
        forms = ["ein", "eine", "einem", "einer"]
        captions = [["ein"], ["fern", "kalt", "ein"]]
        for noun in genders:
            captions += [["dort", form, noun] for form in forms] * (size > 1)
            captions += [[noun, "einen", noun, "einige", noun, "ein"]]
        captions += [["eine", "ein", noun, "ein", noun] for noun in genders]
        for _ in range(size):
            caption: list[str] = []
            for _ in range(3):
                noun, form = random.choice(list(genders)), random.choice(forms)
                between = random.choice(([], ["nass"], ["sehr", "alte"]))
                caption += [form, *between, noun]
                caption += [random.choice(list(genders)), "dort"]
            caption += [random.choice(forms), "neue", "dinge"]
            captions.append(caption)
        right = every = 0
        for caption in captions:
            for i, form in enumerate(caption):
                near = [w for w in caption[i + 1 : i + 3] if w in genders]
                if form in forms and near:
                    every += 1
                    right += form in fits[genders[near[0]]]
        found = call(agreement, captions, genders)
        if isinstance(found, (Tensor, np.ndarray)) and found.ndim == 1:
            found = found.tolist()
        found = parts(found, "how many fit", "how many have a noun")
        got = [number(f, "the count", whole=True) for f in found]
        compare(
            got,
            [float(right), float(every)],
            [
                (
                    [float(every - right), float(every)],
                    "these are the articles that do not fit",
                )
            ]
            if right != every - right
            else (),
            otherwise=f"in {len(captions)} captions such as "
            f"{' '.join(captions[-1])!r}, with the genders {genders}, {right} "
            f"of {every} articles fit, and you count {got[0]:.0f} of "
            f"{got[1]:.0f}",
        )
    return (
        "nobody has told the captioner about gender; see what it makes of it."
    )


@cache
def german_references() -> list[list[list[str]]]:
    """Five captions of each test scene, as words."""
    told = [german.scene_with_captions("test", i)[1] for i in range(TEST)]
    return [
        [re.findall(r"[^\W\d_]+", text.lower()) for text in of_scene]
        for of_scene in told
    ]


def articles_right(captions: list[list[str]]) -> float:
    """The share of articles that fit the noun after them."""
    fits = {"ein": "mn", "einem": "mn", "eine": "f", "einer": "f"}
    hits = []
    for words_ in captions:
        rows = zip(words_, words_[1:], [*words_[2:], ""], strict=False)
        for article, *near in rows:
            nouns = [word for word in near if word in GENDERS]
            if article in fits and nouns:
                hits.append(GENDERS[nouns[0]] in fits[article])
    return sum(hits) / max(1, len(hits))


def project_b_4(captions) -> str:
    """A trained captioner's German."""
    captions = _captions(captions)
    bleu4 = score(german_references(), captions)["bleu4"]
    fit = articles_right(captions)
    said = f"BLEU-4 {bleu4:.1f}; {100 * fit:.1f}% of the articles fit"
    if bleu4 < LEAST_GERMAN:
        raise Wrong(
            f"{said}. Less than {LEAST_GERMAN} is too little: are the words "
            "lower-case and whole, with their umlauts?"
        )
    return f"{said}."


# C: two scales


def _pooled(cells: Tensor) -> Tensor:
    """(B, P, D) to (B, P / 4, D): means of squares of four cells."""
    B, P, D = cells.shape
    side = round(P**0.5)
    grid = cells.mT.reshape(B, D, side, side)
    return torch.nn.functional.avg_pool2d(grid, 2).flatten(2).mT


def project_c_1(two_scales) -> str:
    """Coarse cells behind the fine ones."""
    for B, side, D in ((3, 4, 3), (2, 2, 5), (2, 6, 2)):
        cells = torch.randn(B, side * side, D)
        coarse, P = _pooled(cells), side * side
        got = tensor(
            call(two_scales, cells),
            (B, P + P // 4, D),
            "the tensor",
            known={
                (B, P // 4, D): "the fine cells should come, too, before these"
            },
        )
        rows = cells.view(B, P // 4, 4, D).mean(dim=2)
        compare(
            got,
            torch.cat([cells, coarse], dim=1),
            [
                (
                    torch.cat([coarse, cells], dim=1),
                    "the fine cells should come first",
                ),
                (
                    torch.cat([cells, 4 * coarse], dim=1),
                    "a coarse cell is the mean of four, and yours is their sum",
                ),
                (
                    torch.cat([cells, rows], dim=1),
                    "that averages four cells in a row; take squares of two "
                    "by two",
                ),
            ],
            what="the tensor",
        )
    return "the same grid twice, once with and once without its details."


def project_c_2(on_fine) -> str:
    """Both scales' weights on one map."""
    for N, side in ((3, 4), (1, 2), (2, 14)):
        P = side * side
        alpha = torch.rand(N, P + P // 4)
        alpha = alpha / alpha.sum(dim=1, keepdim=True)
        fine, coarse = alpha[:, :P], alpha[:, P:]
        grid = coarse.view(N, 1, side // 2, side // 2)
        spread = torch.nn.functional.interpolate(grid, scale_factor=2)
        spread = spread.flatten(1)
        got = tensor(call(on_fine, alpha), (N, P), "the map")
        compare(
            got,
            fine + spread / 4,
            [
                (
                    fine + spread,
                    "it adds up to more than 1: a coarse cell's weight is "
                    "shared by its four cells",
                ),
                (fine, "the coarse cells' weight is lost"),
                (
                    fine / fine.sum(dim=1, keepdim=True),
                    "the coarse cells' weight is lost; it should go to the "
                    "cells they are made of",
                ),
                (
                    fine + coarse.repeat(1, 4) / 4,
                    "the weight falls on other cells than those a coarse cell "
                    "is made of",
                ),
                (
                    fine + coarse.repeat_interleave(4, dim=1) / 4,
                    "the weight falls on four cells in a row; a coarse cell is "
                    "made of two by two",
                ),
            ],
            what="the map",
        )
    return "the map still adds up to 1, so that boxes can judge it."


def project_c_3(coarse_bias) -> str:
    """Which bias gives the coarse cells a share, where scores are equal."""
    for fine, coarse, share in (
        (16, 4, 0.3),
        (36, 9, 0.75),
        (100, 4, 0.5),
        (49, 7, 0.125),
        (12, 12, 0.5),
        (64, 16, 0.1),
        (4, 16, 0.3),
        (10, 4, 0.6),
    ):
        odds = share / (1 - share)
        got = number(call(coarse_bias, fine, coarse, share), "the bias")
        part = coarse * math.exp(min(got, 50.0))
        compare(
            got,
            math.log(odds * fine / coarse),
            [
                (
                    odds * fine / coarse,
                    "that is a factor of the weights; a bias is added to "
                    "scores, before the exponential",
                ),
            ],
            otherwise=f"with {fine} fine and {coarse} coarse cells of equal "
            f"scores and your bias {got:.4f}, the coarse ones together have "
            f"the share {part / (part + fine):.4f}; it should be {share}",
        )
    return "in a softmax, crowds win; a bias weighs them against each other."


def project_c_4(one, two) -> str:
    """Yardsticks of a captioner with one scale and one with two."""
    for found, name in ((one, "one scale"), (two, "two scales")):
        if not isinstance(found, dict) or not {"bleu4", "correctness"} <= set(
            found
        ):
            raise Wrong(
                f"what `yardsticks` says of {name} is a dictionary with "
                f"'bleu4' and 'correctness', but this is {describe(found)}"
            )
        bleu4 = number(found["bleu4"], f"'bleu4' of {name}")
        number(found["correctness"], f"'correctness' of {name}")
        if bleu4 < LEAST_SCALES:
            raise Wrong(
                f"the captioner with {name} has a BLEU-4 of {bleu4:.1f}; after "
                f"a whole training it is {LEAST_SCALES} or more"
            )
    words = two["bleu4"] - one["bleu4"]
    where = two["correctness"] - one["correctness"]
    return (
        f"two scales against one: BLEU-4 {words:+.1f}, weight in the box "
        f"{where:+.2f}. How large are these gaps with another seed?"
    )


# D: a race


def project_d_1(affordable) -> str:
    """How many scenes a budget pays for."""
    for budget, fixed, draw, train, epochs in (
        (300, 20, 0.05, 0.004, 10),
        (600, 31.5, 0.037, 0.0061, 7),
        (50, 60, 0.03, 0.005, 3),
        (90, 0, 0.25, 0.125, 2),
        (100, 9, 0.02, 0.003, 1),
        (1, 0, 2, 1, 1),
    ):
        each = draw + epochs * train
        most = max(0, int((budget - fixed) / each))
        got = number(
            call(affordable, budget, fixed, draw, train, epochs),
            "the number of scenes",
            whole=True,
        )
        compare(
            got,
            float(most),
            [
                (
                    float(int((budget - fixed) / (draw + train))),
                    "each scene is read once an epoch",
                ),
                (
                    float(int((budget - fixed) / (epochs * (draw + train)))),
                    "each scene is drawn only once",
                ),
                (
                    float(int(budget / each)),
                    "what is fixed is spent before the first scene",
                ),
            ]
            if most
            else (),
            otherwise=f"{most} scenes take {fixed + most * each:.3f} of "
            f"{budget} seconds, one more {fixed + (most + 1) * each:.3f}, and "
            f"you have {got:.0f}",
        )
    return "more scenes or more epochs? Try both ends before you choose."


def project_d_2(consensus) -> str:
    """The candidate that is most like all of them, weighted by probability."""
    cases = ((4, 0), (6, -200), (1, -3), (3, -90), (5, -6), (4, -900))
    for K, low in cases * 4:
        candidates = [
            [f"caption{i}", *random.sample(POOL, 3)] for i in range(K)
        ]
        random.shuffle(candidates)
        likeness = torch.rand(K, K)
        likeness.fill_diagonal_(random.choice((1.0, 0.7)))
        log_probs = low - 2 * torch.rand(K)

        def alike(caption, other, all_=candidates, table=likeness) -> float:
            return float(
                table[all_.index(list(caption)), all_.index(list(other))]
            )

        weights = log_probs.softmax(dim=0)

        def ranked(votes: Tensor, all_=candidates) -> list[str]:
            return all_[int(votes.argmax())]

        right = ranked(likeness @ weights)
        got = call(consensus, candidates, log_probs, alike)
        try:
            got = words(got, "the caption")
        except Wrong:
            raise Wrong(
                f"one of the captions should come back, a list of words, not "
                f"{describe(got)}"
            ) from None
        known = [
            (ranked(weights), "that is the likeliest, whatever others say"),
            (ranked(likeness.sum(1)), "likelier captions count for more"),
            (
                ranked(weights @ likeness),
                "ask how good a caption is where another is the truth: "
                "`alike(caption, other)`",
            ),
            (
                ranked(-(likeness @ weights)),
                "that one is least like the others",
            ),
        ]
        compare(
            got,
            right,
            [(c, m) for c, m in known if c != right],
            what=f"of {K} captions, the one chosen",
        )
    return (
        "this is the idea of minimum Bayes risk: a vote instead of a favourite."
    )


def project_d_3(captions) -> str:
    """A place on the board."""
    captions = _captions(captions)
    told = [scenes.scene_with_captions("test", i)[1] for i in range(TEST)]
    told = [[scenes.tokenise(text) for text in of_scene] for of_scene in told]
    bleu4 = score(told, captions)["bleu4"]
    place = 1 + sum(bleu4 < entry for entry in BOARD.values())
    if place > len(BOARD):
        raise Wrong(
            f"BLEU-4 {bleu4:.1f}; the last of the board, {list(BOARD)[-1]}, has "
            f"{list(BOARD.values())[-1]:.1f}"
        )
    return f"BLEU-4 {bleu4:.1f}: place {place} of {len(BOARD) + 1}."
