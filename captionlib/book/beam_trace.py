"""Record a beam search, and draw it as a tree to step through.

The view is one of those that `captionlib.book.views` describes.
"""

from __future__ import annotations

import html
import math
from typing import NamedTuple

import torch
from torch import Tensor

from captionlib.beam_search import (
    Beam,
    Finished,
    extend,
    first_beam,
    forbid,
    settle,
)
from captionlib.book.views import View, controls, status, tag
from captionlib.config import SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention

__all__ = ["Candidate", "SearchTrace", "beam_view", "trace_search"]

FATES = {
    "kept": "kept",
    "finished": "finished, put aside",
    "dropped": "dropped, not among the best",
    "beaten": "given up, it can’t overtake the best finished one",
    "cut": "given up, it is longer than a caption may be",
}


class Candidate(NamedTuple):
    """A prefix that a step considered."""

    words: list[str]  # without <start>; the last one is this step's
    log_prob: float  # nats, summed
    # Its index among the previous step's candidates; -1 at the first step.
    parent: int
    # Kept, finished, dropped, beaten (can't overtake the finished ones), cut
    # (too long)
    fate: str


class SearchTrace(NamedTuple):
    """A search for one image's caption."""

    beam_size: int
    # Those that entered the beam, best first, then the best of the dropped.
    steps: list[list[Candidate]]

    def last_steps(self) -> list[list[int]]:
        """For each candidate, the last step at which it or a continuation is
        live.

        Finished captions, the best one, and their prefixes last to the end.
        """
        end = len(self.steps) - 1
        last = [
            [end if c.fate == "finished" else t for c in s]
            for t, s in enumerate(self.steps)
        ]
        for t, i in self.winners():
            last[t][i] = end
        for t in range(end, 0, -1):
            for i, each in enumerate(self.steps[t]):
                if each.fate in ("kept", "finished"):
                    last[t - 1][each.parent] = max(
                        last[t - 1][each.parent], last[t][i]
                    )
        return last

    def winners(self) -> list[tuple[int, int]]:
        """(step, index) of each word of the best caption.

        If none finished, this is the best live prefix."""
        all_of = [
            (c, t, i)
            for t, step in enumerate(self.steps)
            for i, c in enumerate(step)
        ]
        done = [
            (c.log_prob, t, i) for c, t, i in all_of if c.fate == "finished"
        ]
        live = [(t, c.log_prob, i) for c, t, i in all_of if c.fate == "kept"]
        if done:
            _, t, i = max(done)
        else:
            t, _, i = max(live)
        path = []
        while t >= 0:
            path.append((t, i))
            t, i = t - 1, self.steps[t][i].parent
        return path[::-1]


@torch.inference_mode()
def trace_search(
    decoder: DecoderWithAttention,
    encoder_out: Tensor,
    vocabulary: Vocabulary,
    config: SearchConfig,
    *,
    dropped: int = 2,
) -> SearchTrace:
    """Search as `beam_search` does, and record every step.

    Args:
        decoder: in eval mode.
        encoder_out: (P, D) or (height, width, D) annotation vectors of one
            image.
        vocabulary: the decoder's.
        config: settings of a plain beam search; groups and sampling are not
            traced.
        dropped: how many of the best dropped continuations to record per step.

    Raises:
        ValueError: if the settings ask for groups or sampling.
    """
    if getattr(config, "groups", 1) > 1 or getattr(config, "sample", False):
        raise ValueError(
            "only a plain beam search can be traced, without groups or sampling"
        )
    state = decoder.begin(encoder_out.unsqueeze(0))
    beam = first_beam(state, vocabulary.start)
    finished, steps, parents = Finished(1), [], [-1]
    while True:
        logits, alpha, state = decoder.step(beam.words[0, :, -1], state)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs = logits.log_softmax(dim=1, dtype=dtype)
        forbid(log_probs, beam.words[0], vocabulary, config)
        places = config.beam_size - finished.count
        wider, rows = extend(beam, log_probs, alpha, places + dropped)
        longer = Beam(*(tensor[:, :places].clone() for tensor in wider))
        live = settle(longer, [finished], config, vocabulary.end)[0]
        step = []
        for i, ids in enumerate(wider.words[0].tolist()):
            score = float(wider.scores[0, i])
            if score == -math.inf:
                continue
            fate = "dropped"
            if i < places:
                longest = len(ids) > config.max_words + 1
                fate = "kept" if live[i] else "cut" if longest else "beaten"
                fate = "finished" if ids[-1] == vocabulary.end else fate
            words = [vocabulary.words[id] for id in ids[1:]]
            step.append(Candidate(words, score, parents[rows[0, i]], fate))
        if step:
            steps.append(step)
        if not live.any():
            return SearchTrace(config.beam_size, steps)
        go_on = live.nonzero().flatten()
        beam = Beam(*(tensor[:, go_on] for tensor in longer))
        state = state.select(rows[0, go_on])
        parents = go_on.tolist()  # their places among this step's candidates


def beam_view(trace: SearchTrace) -> View:
    """The beam search stepper: what was kept, dropped and finished at each
    step.

    Args:
        trace: from `trace_search`.
    """
    until = trace.last_steps()
    won = trace.winners()
    says, lists = [], []
    for t, step in enumerate(trace.steps):
        items = []
        for i, each in enumerate(step):
            fate = FATES[each.fate]
            if each.fate == "kept" and until[t][i] == t < len(trace.steps) - 1:
                fate += ", and dies at the next step"
            items.append(
                f'<li class="{each.fate}"><span class="clv-score">{_nats(each.log_prob)}</span>'
                f"{tag('span', ' '.join(each.words))}{tag('span', fate, class_='clv-fate')}</li>"
            )
        hidden = "" if t == len(trace.steps) - 1 else " hidden"
        lists.append(f"<div{hidden}><ol>{''.join(items)}</ol></div>")
        says.append(_beam_sentence(trace, t))
    best = trace.steps[won[-1][0]][won[-1][1]]
    text = " ".join(best.words[:-1] if best.fate == "finished" else best.words)
    summary = (
        f"A search with a beam of {trace.beam_size}, in {len(trace.steps)} steps. Its caption: "
        f"“{text}”, with {_nats(best.log_prob)} nats."
    )
    names = [
        f"step {t + 1} of {len(trace.steps)}" for t in range(len(trace.steps))
    ]
    body = (
        f"{tag('p', summary, class_='clv-title')}{controls(names, len(names) - 1)}"
        f"{status(says[-1])}"
        '<div class="clv-scroll" tabindex="0" role="region" aria-label="Tree of the search">'
        f"{_tree(trace, until, set(won), summary)}</div>"
        f'<div class="clv-beams" hidden>{"".join(lists)}</div>'
        '<p class="clv-note">Orange: a live prefix. Green: finished. Dashed and grey: dropped, '
        "dead, or given up. Numbers are summed log-probabilities in nats: the nearer to 0, the "
        "likelier.</p>"
    )
    return View("beam", summary, body, {"names": names, "says": says})


def _nats(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _beam_sentence(trace: SearchTrace, t: int) -> str:
    """A description of step t and of the best caption so far."""
    step = trace.steps[t]
    number = {fate: sum(each.fate == fate for each in step) for fate in FATES}
    before = (
        1 if t == 0 else sum(each.fate == "kept" for each in trace.steps[t - 1])
    )
    done = [
        each
        for each in (c for s in trace.steps[: t + 1] for c in s)
        if each.fate == "finished"
    ]
    text = f"Step {t + 1}: {before} live prefix{'es' * (before > 1)}, continued with every word. "
    kept, ended = number["kept"], number["finished"]
    text += f"{kept} of the continuations stay{'s' * (kept == 1)} live"
    text += f", {ended} finish{'es' * (ended == 1)}" if ended else ""
    given_up = number["beaten"] + number["cut"]
    text += f", {given_up} can’t win any more. " if given_up else ". "
    if done:
        best = max(done, key=lambda each: each.log_prob)
        text += f"Best finished: “{' '.join(best.words)}”, {_nats(best.log_prob)} nats."
    return text


def _tree(
    trace: SearchTrace, until: list[list[int]], won: set, summary: str
) -> str:
    """The tree as SVG: one column per step, one row per candidate."""
    height, gap, boxes = 46, 34, []
    x, right = 8.0, 0.0
    before: list[tuple[float, float]] = [(0.0, 0.0)]
    rows = max(len(step) for step in trace.steps)
    for t, step in enumerate(trace.steps):
        wide = max(40.0, 7.6 * max(len(each.words[-1]) for each in step) + 16)
        right, places = x + wide, []
        for i, each in enumerate(step):
            y = 24 + height * i
            line = ""
            if t:
                x0, y0 = before[each.parent]
                line = f'<path d="M{x0:g} {y0:g}C{x - 14:g} {y0:g} {x0 + 14:g} {y:g} {x:g} {y:g}"/>'
            kind = each.fate
            if kind == "kept" and until[t][i] < len(trace.steps) - 1:
                kind += " dead"  # as it ended
            kind, win = (
                (f"{kind} won", " data-won") if (t, i) in won else (kind, "")
            )
            boxes.append(
                f'<g class="{kind}" data-step="{t}" data-until="{until[t][i]}" '
                f'data-edge="{right:g}"{win}>{line}<rect x="{x:g}" y="{y - 12}" width="{wide:g}" '
                f'height="24" rx="5"/><text x="{x + wide / 2:g}" y="{y + 4.5:g}" '
                f'text-anchor="middle">{html.escape(each.words[-1])}</text>'
                f'<text class="clv-small" x="{x + wide / 2:g}" y="{y + 23}" text-anchor="middle">'
                f"{_nats(each.log_prob)}</text></g>"
            )
            places.append((right, y))
        before, x = places, right + gap
    size = f"{right + 8:g} {height * rows + 6:g}"
    width, tall = size.split()
    return (
        f'<svg class="clv-tree" role="img" aria-label="{html.escape(summary)}" width="{width}" '
        f'height="{tall}" viewBox="0 0 {size}">{"".join(boxes)}</svg>'
    )
