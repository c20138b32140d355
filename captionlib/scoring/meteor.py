"""METEOR, computed by its authors' Java program.

Written by hand: chapter 07 has the idea. The program, version 1.5 with its
dictionaries, comes with `pycocoevalcap` and needs Java. It is started once for
all captions and ends with its input.
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

__all__ = ["meteor", "meteor_command", "meteor_of", "meteor_statistics"]

# For English, tuned to rank systems as people do: the weights of an exact word,
# a stem, a synonym and a paraphrase; then the paper's alpha to delta.
MATCHES = np.array([1.0, 0.6, 0.8, 0.6])
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
COLUMNS = 23


def meteor_command() -> list[str]:
    """The command that scores lines from its input, as `pycocoevalcap` starts
    it.

    Raises:
        InputError: if Java or `pycocoevalcap` is not there.
    """
    if shutil.which("java") is None:
        raise InputError(
            "METEOR is a Java program and there is no java on the PATH; install a Java runtime, "
            "such as OpenJDK, or leave METEOR out"
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

    The program gets the words unchanged, separated by spaces, then splits and
    lower-cases them in its own way (its option `-norm`, which `pycocoevalcap`
    sets): *t-shirt* is two words to it.

    Args:
        references: for each of I images, its captions, each a list of words.
        hypotheses: for each image, the generated caption, a list of words.

    Returns:
        (I, 23) float64 for the reference that fits best: words of hypothesis
        and reference; function words of both; for exact words, stems, synonyms
        and paraphrases in turn, how many content words of both match and how
        many function words of both; runs of matches in the same order (0 where
        one run holds everything); matched words of both.

    Raises:
        InputError: if Java or `pycocoevalcap` is missing, if the program fails,
            or if a word holds a space or `|||`, by which the program separates
            words and captions.
    """
    command = meteor_command()
    lines = []
    for image, (captions, hypothesis) in enumerate(
        zip(references, hypotheses, strict=True)
    ):
        for word in (
            word for caption in (*captions, hypothesis) for word in caption
        ):
            if word.split() != [word] or "|||" in word:
                raise InputError(
                    f"image {image}: METEOR can't read {word!r} as one word"
                )
        lines.append(
            " ||| ".join(
                [
                    "SCORE",
                    *(" ".join(words) for words in (*captions, hypothesis)),
                ]
            )
        )
    # Its dictionaries lie beside it.
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
    # All in one piece: no break, as it adds up.
    statistics[words & (statistics[:, 20] == 1), 20] = 0
    return statistics


def meteor_of(sums: np.ndarray) -> np.ndarray:
    """METEOR, ×100, of corpora whose statistics were added up.

    The harmonic mean of precision and recall, leaning towards recall, in which
    content words and exact matches count for more, reduced by a penalty for
    matches scattered over many runs.

    Args:
        sums: (..., 23) rows of `meteor_statistics`, summed over images.

    Returns:
        (...) float64.

    Source: Denkowski and Lavie 2014 (aclanthology.org/W14-3348), section 2.
    """
    sums = np.asarray(sums, dtype=float)
    # Of hypotheses, of references.
    lengths, functions = (sums[..., 0:2], sums[..., 2:4])
    # Kind, content or not, which side.
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

    It is `meteor_of` on the sum of `meteor_statistics`; `resampled_sums` of
    these gives a confidence interval. Arguments as for `meteor_statistics`.

    Raises:
        InputError: as `meteor_statistics`: above all if Java or `pycocoevalcap`
            is missing.
        ValueError: as `check_captions`.

    Source: Denkowski and Lavie 2014 (aclanthology.org/W14-3348), section 2.
    """
    check_captions(references, hypotheses)
    return float(
        meteor_of(meteor_statistics(references, hypotheses).sum(axis=0))
    )


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, 0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
