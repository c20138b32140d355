"""The page on the command line prints the options of every command, from the parser itself."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from captionlib import cli
from captionlib.config import EngineConfig

BOOK = Path(__file__).parent.parent / "book"
COMMANDS = (
    "scenes download prepare train evaluate caption convert export".split()
)
_spec = spec_from_file_location("helper", BOOK / "_ext" / "captionlib_book.py")
helper = module_from_spec(_spec)
_spec.loader.exec_module(helper)


def test_every_command_has_its_table():
    page = (BOOK / "command_line.md").read_text(encoding="utf-8")
    assert re.findall(r"\{command-options\} (\w+)", page) == COMMANDS
    linked = re.findall(r"\]\(#options-(\w+)\)", page)
    assert sorted(linked) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_has_every_option_of_its_command(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    usage = capsys.readouterr().out
    flags = re.findall(r"^  (--[a-z].*?)(?:  |$)", usage, re.MULTILINE)
    flags = set(re.findall(r"--[a-z][\w-]+", " ".join(flags)))
    rows = [row for _, group in helper.options_of(command) for row in group]
    written = " ".join(option for option, _ in rows)
    assert flags == set(re.findall(r"--[a-z][\w-]+", written))
    assert all(about and "%(" not in about for _, about in rows)


def test_a_default_stands_beside_its_option():
    ((_, epochs),) = [
        row
        for _, group in helper.options_of("train")
        for row in group
        if row[0].startswith("--epochs")
    ]
    assert f"default: {EngineConfig().epochs}" in epochs


def test_an_unknown_command_is_an_error():
    with pytest.raises(KeyError):
        helper.options_of("sing")


def test_a_table_of_options_has_a_row_for_each():
    table = helper.CommandOptions.table([("--to DIR", "folder to write")])
    text = table.astext().split()
    assert text == "option meaning --to DIR folder to write".split()
