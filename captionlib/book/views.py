"""Interactive views in a static page: attention, BLEU, packed sequences.

Each function returns a `View`, which a notebook shows as one piece of HTML: a
static picture and a sentence, complete without scripts and in print; the data
that the caller computed; and a small script from assets/views/, which needs no
kernel and no network. Nothing in the HTML has an id, so a view can appear twice
on a page, and equal data give equal HTML. The view of a beam search is in
`captionlib.book.beam_trace`, which needs more of the package.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.rnn import pack_padded_sequence

from captionlib.io.captions import check_caption
from captionlib.io.files import ASSETS
from captionlib.io.images import open_rgb
from captionlib.metrics import Words, bleu_of, bleu_statistics, ngram_counts

__all__ = ["View", "attention_view", "bleu_view", "packed_view"]

PHOTO_SIDE = 420  # pixels along the longer side of the photograph in a page
ORDERS = ("words", "pairs", "triples", "fours")


@cache
def _asset(name: str) -> str:
    return (ASSETS / "views" / name).read_text(encoding="utf-8").strip()


class View:
    """A view for a notebook; its `str` is a summary in words.

    Args:
        kind: names its script, assets/views/<kind>.js.
        summary: what the static picture shows, in a sentence or two.
        body: the HTML of the static picture, and of the controls, which stay
            hidden until the script runs.
        data: input of the script, as JSON.
        scripts: further files in assets/views/ that the view uses.
        sheets: further style sheets there.
        style: CSS variables of this view only.
    """

    def __init__(
        self,
        kind: str,
        summary: str,
        body: str,
        data: dict,
        *,
        scripts=(),
        sheets=(),
        style="",
    ):
        self.kind = kind
        self.summary = summary
        self.body = body
        self.data = data
        self.scripts, self.style = (*scripts, "view.js", f"{kind}.js"), style
        self.sheets = ("view.css", *sheets)

    def __repr__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        data = json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
        # Otherwise a "</script>" in the data would end the script.
        data = data.replace("<", "\\u003c")
        code = "\n\n".join(_asset(name) for name in self.scripts)
        sheets = "\n\n".join(_asset(name) for name in self.sheets)
        return (
            f"<style>\n{sheets}\n</style>\n"
            f'<div class="clv" data-kind="{self.kind}" style="{html.escape(self.style)}">\n'
            f'{self.body}\n<script type="application/json">{data}</script>\n</div>\n'
            f"<script>(() => {{\n{code}\n}})();</script>"
        )


def tag(name: str, text: str, **attributes: str) -> str:
    """An HTML element; `text` is plain text and gets escaped."""
    given = "".join(
        f' {k.strip("_")}="{html.escape(v)}"'
        for k, v in attributes.items()
        if v
    )
    return f"<{name}{given}>{html.escape(text)}</{name}>"


def controls(
    names: Sequence[str], at: int, unit: str = "Step", more: str = ""
) -> str:
    """The hidden buttons and slider that assets/views/view.js activates."""
    buttons = "".join(
        f'<button type="button" data-go="{go}">{text}</button>'
        for go, text in (
            ("first", "Start"),
            ("back", "Back"),
            ("play", "Play"),
            ("next", "Next"),
        )
    )
    return (
        f'<div class="clv-controls" role="group" aria-label="{unit} by {unit.lower()}" hidden>'
        f'{buttons}<button type="button" data-go="last">End</button>'
        f'<label class="clv-wide"><span>{unit}</span><input type="range" min="0" value="{at}" '
        f'max="{len(names) - 1}" step="1" aria-valuetext="{html.escape(names[at])}"></label>'
        f"{more}</div>"
    )


def status(text: str) -> str:
    return tag("p", text, class_="clv-status", role="status")


def data_uri(picture: Image.Image, form: str, **settings) -> str:
    file = io.BytesIO()
    picture.save(file, form, **settings)
    code = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{code}"


def veil(alpha: np.ndarray, top: float) -> str:
    """A picture with one pixel per cell, clear at weight `top` and dark at
    0."""
    night = np.empty((*alpha.shape, 4), dtype=np.uint8)
    night[..., :3] = 8
    night[..., 3] = 208 * (1 - np.sqrt(np.clip(alpha / top, 0, 1)))
    return data_uri(Image.fromarray(night), "PNG")


def attention_view(caption, image) -> View:
    """The attention explorer: pick a word, and see where the decoder looked.

    Args:
        caption: a `Caption`: its `words`, and `alphas` (len(words), h, w).
        image: the captioned image, as `read_image` takes it.

    Raises:
        InputError: if the image can't be read.
        ValueError: if there is not one map for each word, or no word at all.
    """
    alphas = np.asarray(caption.alphas, dtype=np.float32)
    words = list(caption.words)
    if not words or alphas.ndim != 3 or len(alphas) != len(words):
        raise ValueError(
            f"expected {len(words)} maps (h, w), at least one, got {alphas.shape}"
        )
    # `open_rgb` may return the caller's own image, which must keep its size.
    photograph = open_rgb(image).copy()
    photograph.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    h, w = alphas.shape[1:]
    peaks = [f"{alpha.max() * alpha.size:.1f}" for alpha in alphas]
    says = []
    for t, (word, alpha, peak) in enumerate(
        zip(words, alphas, peaks, strict=True), 1
    ):
        row, column = np.unravel_index(alpha.argmax(), alpha.shape)
        says.append(
            f"Word {t} of {len(words)}, {word}: its largest weight is {peak} times an even share, "
            f"in row {row + 1} of {h} and column {column + 1} of {w}."
        )
    first = int(np.argmax([alpha.max() for alpha in alphas]))
    summary = f"Where the decoder looked for each word of “{caption.text}”. {says[first]}"

    top = float(alphas.max())
    sheet = "".join(
        f'<li><div class="clv-photo"><img src="{veil(alpha, top)}" '
        f'alt="{html.escape(said)}"></div>'
        f"{tag('b', word)} {tag('span', f'×{peak}', class_='clv-times')}</li>"
        for word, alpha, peak, said in zip(
            words, alphas, peaks, says, strict=True
        )
    )
    shot = (
        '<figure><div class="clv-photo" role="img"><canvas></canvas></div>'
        '<figcaption><b></b> <span class="clv-times"></span></figcaption></figure>'
    )
    options = "".join(
        tag("option", f"{i + 1} {word}", value=f"{i}")
        for i, word in enumerate(words)
    )
    more = (
        '<label><input type="checkbox" name="smooth" checked> Smooth</label><label>Compare with '
        f'<select name="compare"><option value="">nothing</option>{options}</select></label>'
    )
    names = [f"word {i + 1}" for i in range(len(words))]
    body = (
        f"{tag('p', caption.text, class_='clv-title')}"
        f'<div class="clv-stage" hidden>{shot}{shot}</div>{controls(names, first, "Word", more)}'
        f'{status(says[first])}<ul class="clv-sheet">{sheet}</ul>'
        '<p class="clv-note">Lit where a weight is large, dark where it is small, on one scale for '
        "all words. The number is the word’s largest weight, in multiples of an even share.</p>"
    )
    maps = np.rint(100 * alphas * (h * w)).astype(int).reshape(len(words), -1)
    data = {
        "words": words,
        "peaks": peaks,
        "grid": [h, w],
        "maps": maps.tolist(),
        "says": says,
    }
    data["shape"] = [photograph.height, photograph.width]
    jpeg = data_uri(photograph, "JPEG", quality=75, optimize=True)
    style = f"--photo: url({jpeg}); --shape: {photograph.width} / {photograph.height}"
    return View("attention", summary, body, data, style=style)


def bleu_view(references: Sequence[Words], hypothesis: Words) -> View:
    """The BLEU calculator: type a caption, and see it matched and scored.

    Args:
        references: human captions of one image, each a list of words.
        hypothesis: the initial caption, a list of words.

    Raises:
        ValueError: as `bleu_statistics`.
    """
    check_caption(hypothesis, 0)
    counts = bleu_statistics([references], [hypothesis])[0]
    scores = bleu_of(counts)
    people = [ngram_counts(words) for words in references]
    orders = []
    for n, name in enumerate(ORDERS, 1):
        chips, said = [], {}
        for i in range(len(hypothesis) - n + 1):
            run = tuple(hypothesis[i : i + n])
            said[run] = said.get(run, 0) + 1
            most = max(count[run] for count in people)
            verdict = (
                "missing"
                if not most
                else "found"
                if said[run] <= most
                else "clipped"
            )
            heard = (
                ""
                if verdict == "found"
                else tag("span", f" ({verdict})", class_="clv-sr")
            )
            chips.append(
                f'<li class="{verdict}">{html.escape(" ".join(run))}{heard}</li>'
            )
        matched, possible = int(counts[n - 1]), int(counts[n + 3])
        share = f"{matched / possible:.2f}" if possible else "none"
        orders.append(
            f"<li><span>{name}: <b>{matched} of {possible}</b> found, precision {share}</span>"
            f'<ul class="clv-chips">{"".join(chips)}</ul></li>'
        )
    lines = []
    for words in references:
        marked = [
            tag("mark" if word in hypothesis else "span", word)
            for word in words
        ]
        lines.append(f"<li>{' '.join(marked)}</li>")
    text = " ".join(hypothesis)
    length = len(hypothesis)
    closest = int(counts[8])
    brevity = float(np.exp(min(0.0, 1 - (closest + 1e-9) / (length + 1e-15))))
    sentence = (
        f"{length} words; the closest reference has {closest}. Brevity penalty {brevity:.3f}. "
        f"BLEU-4 {scores[3]:.1f}."
    )
    values = " ".join(
        f"<span>BLEU-{n} <b>{v:.1f}</b></span>" for n, v in enumerate(scores, 1)
    )
    body = (
        f'{tag("p", "What people said", class_="clv-title")}<ul class="clv-people">'
        f'{"".join(lines)}</ul><div class="clv-type" hidden><label class="clv-wide" '
        f'style="width: 100%">Your&nbsp;caption <input type="text" value="{html.escape(text)}" '
        'autocomplete="off" autocapitalize="off" spellcheck="false"></label>'
        '<div class="clv-controls"><button type="button">Start again</button></div></div>'
        f"<noscript>{tag('p', f'The caption: {text}')}</noscript>"
        f'<div class="clv-bleus">{values}</div>{status(sentence)}'
        f'<ul class="clv-orders">{"".join(orders)}</ul>'
        '<p class="clv-note">Green: found in a reference. Struck through: clipped, said more often '
        "than any one person said it. Grey and dashed: nobody said it.</p>"
    )
    data = {
        "references": [list(words) for words in references],
        "names": list(ORDERS),
    }
    summary = (
        f"BLEU of “{text}” against {len(references)} references. {sentence}"
    )
    return View("bleu", summary, body, data, scripts=("bleu_score.js",))


def packed_view(captions: Sequence[Words]) -> View:
    """The packed-sequence stepper: a padded batch, sorted and packed step by
    step.

    Args:
        captions: a batch in any order, each a list of at least one word.

    Raises:
        ValueError: if there is no caption, or an empty one.
    """
    lengths = [len(words) for words in captions]
    if not lengths or min(lengths) == 0:
        raise ValueError(
            f"expected captions of at least one word, got lengths {lengths}"
        )
    longest, real = max(lengths), sum(lengths)
    # The index of each word in the padded batch.
    places = torch.zeros(len(captions), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        places[row, :length] = row * longest + torch.arange(length)
    packed = pack_padded_sequence(
        places, torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    order, sizes = packed.sorted_indices.tolist(), packed.batch_sizes.tolist()
    tokens = [captions[i // longest][i % longest] for i in packed.data.tolist()]

    def cells(words: Words) -> str:
        pads = '<td class="pad">pad</td>' * (longest - len(words))
        return "".join(tag("td", word, class_="word") for word in words) + pads

    rows = "".join(
        f'<tr><th scope="row">caption {i}</th>{cells(captions[i])}</tr>'
        for i in order
    )
    heads = "".join(f'<th scope="col">{t}</th>' for t in range(longest))
    total = len(captions) * longest
    says = [
        f"The padded batch as it came: {len(captions)} captions, {longest} columns, {total} cells, "
        f"of which {total - real} {'is' if total - real == 1 else 'are'} padding.",
        "Sorted, longest first. At every step the captions still running are the first rows.",
    ]
    done = 0
    for t, size in enumerate(sizes):
        done += size
        padded = (t + 1) * len(captions)
        says.append(
            f"Step {t}: the first {size} row{'s' * (size > 1)}, batch size {size}. Computed so far "
            f"{done} cells; without packing it would be {padded}, so {padded - done} saved."
        )
    end = (
        f"Packed: {real} words in {longest} steps, batch sizes {', '.join(map(str, sizes))}. "
        f"{total - real} of {total} cells ({(total - real) / total:.0%}) were never computed."
    )
    says.append(end)
    names = [
        "the padded batch",
        "sorted",
        *(f"step {t}" for t in range(longest)),
        "packed",
    ]
    strip = "".join(tag("li", word) for word in tokens)
    foot = "".join(tag("td", f"{size}") for size in sizes)
    body = (
        f"{tag('p', 'A batch of captions, step by step', class_='clv-title')}"
        f"{controls(names, len(names) - 1)}{status(end)}"
        '<div class="clv-scroll" tabindex="0" role="region" aria-label="The batch"><table>'
        f'<thead><tr><th scope="row">step</th>{heads}</tr></thead><tbody>{rows}</tbody>'
        f'<tfoot><tr><th scope="row">batch size</th>{foot}</tr></tfoot></table></div>'
        f'<p class="clv-note">The packed data, {real} words, in the order of the work:</p>'
        f'<ol class="clv-chips clv-packed">{strip}</ol>'
    )
    return View(
        "packed",
        end,
        body,
        {"order": order, "sizes": sizes, "names": names, "says": says},
    )
