"""Questions in a page: predict and look, recall, put lines in order.

`ask("03.a")` shows one, from assets/questions/03.json. Like the interactive views
it is a piece of HTML that needs no kernel and no network, is complete without
scripts (the answer is folded then) and has no ids. A browser remembers what was
chosen.
"""

from __future__ import annotations

import html
import json
import random
import re
from functools import cache

from captionlib.io.files import ASSETS, read_json

__all__ = ["KINDS", "Question", "ask", "questions_of"]

KINDS = {
    "predict": "Predict",
    "recall": "Recall",
    "plot": "Read the plot",
    "order": "Put the lines in order",
}


def marked(text: str) -> str:
    """Plain text as HTML; `code` between backticks, *words* stressed."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)


def shuffled(lines: list[str], name: str) -> list[int]:
    """An order for the lines that is not the right one, the same each time."""
    order, rng = list(range(len(lines))), random.Random(name)
    while [lines[i] for i in order] == lines:
        rng.shuffle(order)
    return order


class Question:
    """A question for a notebook; its `str` is the question."""

    def __init__(self, name: str, stored: dict):
        self.name, self.stored = name, stored
        self.kind = stored["kind"]

    def __repr__(self) -> str:
        return f"{KINDS[self.kind]}: {self.stored['text']}"

    def _choices(self) -> str:
        rows = "".join(
            '<label><input type="radio" name="choice" '
            f'value="{i}"><span>{marked(choice["text"])}</span></label>'
            for i, choice in enumerate(self.stored["choices"])
        )
        says = "".join(
            f"<li>{'<strong>Right.</strong> ' if choice.get('right') else ''}"
            f"<em>{marked(choice['text'])}</em>: {marked(choice['says'])}</li>"
            for choice in self.stored["choices"]
        )
        return (
            f"{rows}<details><summary>What each answer means</summary>"
            f"<ul>{says}</ul></details>"
        )

    def _lines(self) -> str:
        lines = self.stored["lines"]
        rows = "".join(
            f'<li data-line="{i}"><span class="clq-move" hidden>'
            f'<button type="button" data-by="-1" aria-label="Up">↑</button>'
            f'<button type="button" data-by="1" aria-label="Down">↓</button>'
            f"</span><code>{html.escape(lines[i])}</code></li>"
            for i in shuffled(lines, self.name)
        )
        right = html.escape("\n".join(lines))
        return (
            f"<ol>{rows}</ol>"
            '<button type="button" class="clq-check" hidden>Check</button>'
            f"<details><summary>The right order</summary><pre>{right}</pre>"
            f"<p>{marked(self.stored['says'])}</p></details>"
        )

    def _repr_html_(self) -> str:
        body = self._lines() if self.kind == "order" else self._choices()
        data = {"name": self.name}
        if self.kind == "order":
            data |= {"lines": self.stored["lines"], "says": self.stored["says"]}
        else:
            data["choices"] = [
                {"right": bool(c.get("right")), "says": c["says"]}
                for c in self.stored["choices"]
            ]
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        data = data.replace("<", "\\u003c")
        kind = "order" if self.kind == "order" else "choice"
        return (
            f"<style>\n{_asset('question.css')}\n</style>\n"
            f'<form class="clq" data-kind="{kind}"><fieldset>'
            f"<legend><strong>{KINDS[self.kind]}.</strong> "
            f"{marked(self.stored['text'])}</legend>{body}"
            '<p class="clq-says" role="status"></p></fieldset>'
            f'<script type="application/json">{data}</script></form>\n'
            f"<script>(() => {{\n{_asset('question.js')}\n}})();</script>"
        )


@cache
def _asset(name: str) -> str:
    return (ASSETS / "views" / name).read_text(encoding="utf-8").strip()


def questions_of(chapter: str) -> dict[str, dict]:
    """All questions of a chapter, such as "03", by name."""
    return read_json(ASSETS / "questions" / f"{chapter}.json")


def ask(name: str) -> Question:
    """The question "03.a", of chapter 03.

    Raises:
        KeyError: if no question has this name.
    """
    return Question(name, questions_of(name[:2])[name])
