"""Sphinx helpers for this book. Two roles print what was measured and stored:

{chapter-time}`NN_name` is a chapter's run time, and {measured}`FILE KEY FORMAT` a figure of any
stored file, as tools/measured.py describes, which checks all of them without building the book.

{site-file}`words <notebooks.zip>` links to a file that lies beside the pages.

The directive {command-options} prints the options of one captionlib command, from its parser.

It also takes sphinx-thebe off the pages. Jupyter Book loads it for live cells, which this book does
not have, and its script names a remote address twice, which is an error in every page's console.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[2]))

from captionlib.cli.arguments import make_parser  # noqa: E402
from tools.measured import stored  # noqa: E402


def spoken(seconds: float) -> str:
    """A time as a reader wants it: 8.31 -> 'about 9 seconds', 171 -> 'about 3 minutes'."""
    if seconds < 60:
        step = 1 if seconds < 10 else 5
        count = max(1, int(-(-seconds // step) * step))
        return f"about {count} second{'s' * (count > 1)}"
    halves = -(-seconds // 30)
    number = f"{halves / 2:g}"
    return f"about {number} minute{'s' * (number != '1')}"


def chapter_time(
    name, rawtext, text, lineno, inliner, options=None, content=None
):
    """The role. It reads what `make notebooks` measured, from the chapter's metadata."""
    env = inliner.document.settings.env
    path = Path(env.srcdir, "notebooks", f"{text}.ipynb")
    env.note_dependency(str(path))
    try:
        executed = json.loads(path.read_text(encoding="utf-8"))["metadata"][
            "executed"
        ]
        said = f"{spoken(executed['seconds'])} on {executed['cores']} processor cores"
    except (OSError, KeyError) as error:
        message = f"{text}: no measured time in its notebook ({error!r}); run `make notebooks`"
        problem = inliner.reporter.error(message, line=lineno)
        return [inliner.problematic(rawtext, rawtext, problem)], [problem]
    return [nodes.inline(rawtext, said, classes=["chapter-time"])], []


def measured(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role that prints one figure of a stored file."""
    env = inliner.document.settings.env
    env.note_reread()  # a page is cheap to read again, and its figures are in other files
    try:
        said = stored(text, Path(env.srcdir))
    except ValueError as error:
        problem = inliner.reporter.error(str(error), line=lineno)
        return [inliner.problematic(rawtext, rawtext, problem)], [problem]
    return [nodes.inline(rawtext, said, classes=["measured"])], []


def site_file(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role that links to what tools/book.py lays beside the pages."""
    words, _, file = text.rstrip(">").rpartition(" <")
    up = "../" * inliner.document.settings.env.docname.count("/")
    return [
        nodes.reference(rawtext, words, refuri=up + file, internal=True)
    ], []


def options_of(command: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The options of a command in groups: a title, and pairs of how it is written and its help.

    Raises:
        KeyError: there is no such command.
    """
    subparsers = next(
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    parser = subparsers.choices[command]
    look = parser._get_formatter()
    groups = []
    for group in parser._action_groups:
        rows = []
        for action in group._group_actions:
            if isinstance(action, argparse._HelpAction):
                continue
            written = look._format_action_invocation(action)
            about = look._expand_help(action) if action.help else ""
            rows.append((written, about))
        if rows:
            groups.append((group.title or "", rows))
    return groups


class CommandOptions(SphinxDirective):
    """A table for each group of a command's options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the parser is in other files
        try:
            groups = options_of(self.arguments[0])
        except KeyError:
            raise self.error(f"no command {self.arguments[0]}") from None
        found = []
        for title, rows in groups:
            if title not in ("options", "positional arguments"):
                words = title[0].upper() + title[1:]
                found.append(nodes.paragraph("", "", nodes.strong("", words)))
            found.append(self.table(rows))
        return found

    @staticmethod
    def table(rows: list[tuple[str, str]]) -> nodes.table:
        body = nodes.tbody()
        for written, about in rows:
            option = nodes.paragraph("", "", nodes.literal("", written))
            meaning = nodes.paragraph("", about)
            cells = nodes.entry("", option), nodes.entry("", meaning)
            body += nodes.row("", *cells)
        heads = [
            nodes.entry("", nodes.paragraph("", words))
            for words in ("option", "meaning")
        ]
        columns = [nodes.colspec(colwidth=width) for width in (40, 60)]
        head = nodes.thead("", nodes.row("", *heads))
        group = nodes.tgroup("", *columns, head, body, cols=2)
        return nodes.table("", group, classes=["command-options"])


def mark_short_code(app, doctree):
    """Give code in the prose a class if its words are short: book.css keeps these whole.

    A browser would break --beam-size behind each hyphen.
    """
    for code in doctree.findall(nodes.literal):
        if max(map(len, code.astext().split()), default=0) <= 24:
            code["classes"].append("short")


def silence_thebe(app, config):
    """Disconnect what writes sphinx-thebe's scripts into pages."""
    for event in (
        "env-before-read-docs",
        "env-updated",
        "html-page-context",
        "doctree-resolved",
    ):
        listeners = app.events.listeners.get(event, [])
        listeners[:] = [
            x for x in listeners if x.handler.__module__ != "sphinx_thebe"
        ]


def setup(app):
    app.connect("config-inited", silence_thebe)
    app.connect("doctree-read", mark_short_code)
    app.add_role("chapter-time", chapter_time)
    app.add_role("measured", measured)
    app.add_role("site-file", site_file)
    app.add_directive("command-options", CommandOptions)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
