"""Scoring 1,000 captions, with intervals, compared with `pycocoevalcap`.

The scores are BLEU, ROUGE-L and CIDEr-D. CIDEr-D is also timed alone, as a
reward in one training step: five captions for each of 64 images, against the
references of 1,000, which `pycocoevalcap` has to read each time.
"""

from __future__ import annotations

import contextlib
import io
from random import Random

import numpy as np

from benchmarks import Row, median_seconds
from captionlib.metrics import score
from captionlib.scoring.bootstrap import intervals
from captionlib.scoring.cider import CiderD

IMAGES, STEP, EACH = 1000, 64, 5


def captions(rng: Random, count: int) -> list[list[str]]:
    """Captions of about eleven words, with word frequencies as in natural
    language."""
    return [
        [
            f"w{int(3 * rng.paretovariate(0.9))}"
            for _ in range(rng.randint(6, 16))
        ]
        for _ in range(count)
    ]


def with_pycocoevalcap(references: list, hypotheses: list) -> list[float]:
    """The six scores by the code that papers use."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {
        i: [" ".join(words) for words in group]
        for i, group in enumerate(references)
    }
    said = {i: [" ".join(words)] for i, words in enumerate(hypotheses)}
    with contextlib.redirect_stdout(io.StringIO()):
        values = [*Bleu(4).compute_score(truth, said, verbose=0)[0]]
    values += [
        scorer.compute_score(truth, said)[0] for scorer in (Rouge(), Cider())
    ]
    return [100 * value for value in values]


def main() -> list[Row]:
    """Time all, print the times, and return the rows of the table."""
    rng = Random(0)
    references = [captions(rng, 5) for _ in range(IMAGES)]
    hypotheses = [
        words[:-1] for (words,) in (captions(rng, 1) for _ in range(IMAGES))
    ]
    assert np.allclose(
        list(score(references, hypotheses).values()),
        with_pycocoevalcap(references, hypotheses),
    )
    cider = CiderD(references)
    rows = [row for row in rng.sample(range(IMAGES), STEP) for _ in range(EACH)]
    sampled = captions(rng, len(rows))
    seconds = median_seconds(
        {
            "score": lambda: score(references, hypotheses),
            "both": lambda: (
                score(references, hypotheses),
                intervals(references, hypotheses),
            ),
            "step": lambda: cider.scores(rows, sampled),
            "pycocoevalcap": lambda: with_pycocoevalcap(references, hypotheses),
        },
        rounds=3,
    )
    print(f"scoring {IMAGES:,} captions against 5 references each")
    print(
        f"  pycocoevalcap       {1000 * seconds['pycocoevalcap']:6.0f} ms, "
        "without intervals"
    )
    print(f"  score               {1000 * seconds['score']:6.0f} ms")
    print(
        f"  score and intervals {1000 * seconds['both']:6.0f} ms, 1,000 "
        "resamples"
    )
    print(
        f"  CIDEr-D of {len(rows)}      {1000 * seconds['step']:6.0f} ms, "
        "references prepared once"
    )
    ratio = seconds["pycocoevalcap"] / seconds["score"]
    print(f"  score is {ratio:.1f} times as fast as pycocoevalcap")
    return [
        Row("scoring 1,000 captions", seconds["score"], "s", 2, at_least=False),
        Row(
            "the same, with intervals", seconds["both"], "s", 2, at_least=False
        ),
        Row("scoring against pycocoevalcap", ratio, "×"),
    ]


if __name__ == "__main__":
    main()
