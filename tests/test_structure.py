"""How the package is built: which module imports which, by its source alone."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted((ROOT / "captionlib").rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """All that a file imports, also within functions; names of modules as far as they are known."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: name modules in full"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found.add(module if module in MODULES else node.module)
    return found


GRAPH = {name: imports(path) for name, path in MODULES.items()}


def room(name: str) -> str:
    """captionlib.engine.runs is in the room "engine"; chapters' modules are in ""."""
    path = MODULES[name].relative_to(ROOT / "captionlib")
    return path.parts[0] if len(path.parts) > 1 else ""


def rooms_imported(name: str) -> set[str]:
    return {room(other) for other in GRAPH[name] & MODULES.keys()}


def in_room(*rooms: str) -> list[str]:
    return [name for name in MODULES if room(name) in rooms]


def test_no_module_imports_itself_by_a_detour():
    # A package that fetches a name on first use does not import it: captionlib, captionlib.engine.
    lazy = {
        name
        for name, path in MODULES.items()
        if path.name == "__init__.py" and "def __getattr__" in path.read_text()
    }
    graph = {
        name: set() if name in lazy else others & MODULES.keys()
        for name, others in GRAPH.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_settings_rest_on_nothing_and_files_on_settings_alone():
    for name in in_room("config"):
        assert rooms_imported(name) <= {"config"}, name
    for name in in_room("io"):
        assert rooms_imported(name) <= {"config", "io", ""}, name
        assert not GRAPH[name] & CHAPTERS, name


CHAPTERS = {name for name in in_room("") if name != "captionlib"}


def test_only_the_command_line_knows_the_command_line():
    for name in MODULES:
        if room(name) == "cli":
            continue
        assert "cli" not in rooms_imported(name), name
        assert "argparse" not in GRAPH[name], name


def test_settings_and_recipes_do_not_wait_for_torch():
    code = (
        "import sys, captionlib.config, captionlib.engine.recipes\n"
        "captionlib.engine.recipes.read_recipe('shipped')\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'argparse'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
