"""METEOR, computed by its authors' Java program.

Chapter 07 explains the idea. The program, version 1.5 with its dictionaries,
comes with `pycocoevalcap` and needs Java. It is started once for all captions.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captionlib.io.captions import check_captions
from captionlib.io.files import InputError

__all__ = [
    "check_meteor",
    "meteor",
    "meteor_command",
    "meteor_of",
    "meteor_statistics",
]

# For English, tuned to human rankings of systems: the weights of an exact
# match, a stem, a synonym and a paraphrase; then the paper's alpha to delta.
MATCHES = np.array([1.0, 0.6, 0.8, 0.6])
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
COLUMNS = 23


def meteor_command() -> list[str]:
    """The command that starts the program, as in `pycocoevalcap`.

    Raises:
        InputError: if Java or `pycocoevalcap` is missing, or Java fails.
    """
    if shutil.which("java") is None:
        raise InputError(
            "METEOR needs Java, and there is no java on the PATH; install a "
            "Java runtime, such as OpenJDK, or leave METEOR out"
        )
    # macOS has a java that only says where to get one.
    tried = subprocess.run(
        ["java", "-version"], capture_output=True, stdin=subprocess.DEVNULL
    )
    if tried.returncode:
        raise InputError(
            "METEOR needs Java, and the one on the PATH fails; check that "
            "java -version works, or leave METEOR out"
        )
    package = importlib.util.find_spec("pycocoevalcap")
    folders = (package and package.submodule_search_locations) or []
    jars = [Path(folder) / "meteor" / "meteor-1.5.jar" for folder in folders]
    found = next((jar for jar in jars if jar.is_file()), None)
    if found is None:
        raise InputError(
            "METEOR comes with pycocoevalcap, which is not installed; "
            "pip install pycocoevalcap, or leave METEOR out"
        )
    return [
        "java",
        "-Xmx2G",
        "-jar",
        str(found),
        "-",
        "-",
        "-stdio",
        "-l",
        "en",
        "-norm",
    ]


def meteor_statistics(
    references: Sequence[Sequence[Sequence[str]]],
    hypotheses: Sequence[Sequence[str]],
) -> np.ndarray:
    """The program's counts for each image; they add up over a corpus.

    The program gets the words unchanged, separated by spaces. It then splits
    and lower-cases them in its own way (option `-norm`, as in `pycocoevalcap`):
    *t-shirt* becomes two words.

    Args:
        references: for each of I images, its captions, each a list of words.
        hypotheses: for each image, the generated caption, a list of words.

    Returns:
        (I, 23) float64 counts for the reference that matches best: words of
        hypothesis and reference; function words of each; for exact matches,
        stems, synonyms and paraphrases in turn, the matched content words of
        each, then the matched function words of each; chunks, that is, runs of
        matches in the same order (0 if one run holds everything); matched words
        of each.

    Raises:
        InputError: if Java or `pycocoevalcap` is missing, if the program fails,
            or if a word holds a space or `|||`, the program's separators.
    """
    command = meteor_command()
    lines = []
    for image, (captions, hypothesis) in enumerate(
        zip(references, hypotheses, strict=True)
    ):
        _check_words(image, (*captions, hypothesis))
        lines.append(
            " ||| ".join(
                [
                    "SCORE",
                    *(" ".join(words) for words in (*captions, hypothesis)),
                ]
            )
        )
    # It finds its dictionaries beside the jar.
    done = subprocess.run(
        command,
        input="".join(line + "\n" for line in lines).encode(),
        capture_output=True,
        cwd=Path(command[command.index("-jar") + 1]).parent,
    )
    try:
        rows = [
            [float(n) for n in line.split()]
            for line in done.stdout.decode().splitlines()
        ]
    except ValueError:
        rows = []
    if len(rows) != len(lines) or any(len(row) != COLUMNS for row in rows):
        said = (
            (done.stderr or done.stdout)
            .decode(errors="replace")
            .strip()
            .splitlines()
        )
        about = f" ({said[0].strip()})" if said else ""
        raise InputError(
            f"METEOR gave no scores{about}; check that java -version works"
        )
    statistics = np.array(rows)
    words = (statistics[:, 21:23] == statistics[:, 0:2]).all(axis=1)
    # A single chunk counts as none when the program adds up a corpus.
    statistics[words & (statistics[:, 20] == 1), 20] = 0
    return statistics


def meteor_of(sums: np.ndarray) -> np.ndarray:
    """METEOR, ×100, from summed statistics.

    The harmonic mean of precision and recall, leaning towards recall, in which
    content words and exact matches count for more, reduced by a penalty for
    fragmentation: matches scattered over many chunks.

    Args:
        sums: (..., 23) rows of `meteor_statistics`, summed over images.

    Returns:
        (...) float64.

    Source: Denkowski and Lavie 2014 (aclanthology.org/W14-3348), section 2.
    """
    sums = np.asarray(sums, dtype=float)
    # (..., 2): of hypotheses, of references
    lengths, functions = sums[..., 0:2], sums[..., 2:4]
    # (..., 4, 2, 2): kind of match, content or function word, side
    matched = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)
    content = np.einsum("k,...ks->...s", MATCHES, matched[..., 0, :])
    function = np.einsum("k,...ks->...s", MATCHES, matched[..., 1, :])
    shares = _divide(
        DELTA * content + (1 - DELTA) * function,
        DELTA * (lengths - functions) + (1 - DELTA) * functions,
    )
    precision, recall = shares[..., 0], shares[..., 1]
    mean = _divide(precision * recall, ALPHA * precision + (1 - ALPHA) * recall)
    chunks, words = sums[..., 20], sums[..., 21:23]
    return (
        100 * mean * (1 - GAMMA * _divide(chunks, words.mean(axis=-1)) ** BETA)
    )


def meteor(
    references: Sequence[Sequence[Sequence[str]]],
    hypotheses: Sequence[Sequence[str]],
) -> float:
    """METEOR of a corpus, ×100; starting the Java program takes seconds.

    This is `meteor_of` of the summed `meteor_statistics`; their
    `resampled_sums` give a confidence interval. Arguments as for
    `meteor_statistics`.

    Raises:
        InputError: as `meteor_statistics`, such as when Java or `pycocoevalcap`
            is missing.
        ValueError: as `check_captions`.

    Source: Denkowski and Lavie 2014 (aclanthology.org/W14-3348), section 2.
    """
    check_captions(references, hypotheses)
    return float(
        meteor_of(meteor_statistics(references, hypotheses).sum(axis=0))
    )


def check_meteor(references: Sequence[Sequence[Sequence[str]]]) -> None:
    """Check what METEOR needs before anything is captioned.

    Raises:
        InputError: as `meteor_command`, or if METEOR can't read a word of the
            references.
    """
    meteor_command()
    for image, captions in enumerate(references):
        _check_words(image, captions)


def _check_words(image: int, captions: Sequence[Sequence[str]]) -> None:
    for word in (word for caption in captions for word in caption):
        if word.split() != [word] or "|||" in word:
            raise InputError(
                f"image {image}: METEOR can't read {word!r} as one word"
            )


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, or 0 where the divisor is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
