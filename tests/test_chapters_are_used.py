"""The product runs on chapters 01 to 09: its commands execute most of what they exported.

This file is also the program that the test starts: it traces lines from before the first import,
runs `captionlib train`, `evaluate` and `caption` on a tiny toy world, and prints what it saw.
"""

import ast
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Part III goes beyond what the three commands do.
BEYOND = {"grounding", "hard_attention", "parts"}
BEYOND |= {"self_critical", "transformer"}
CHAPTERS = {
    str(path): path.stem
    for path in sorted((ROOT / "captionlib").glob("*.py"))
    if path.stem not in {"__init__", *BEYOND}
}
AT_LEAST = 0.8
RECIPE = {
    "scenes": {"train": 10, "val": 3, "test": 0, "seed": 1},
    "data": {"dataset": "scenes", "min_word_freq": 2, "max_len": 20},
    "model": {
        "image_size": 64,
        "attention_dim": 8,
        "embed_dim": 8,
        "decoder_dim": 8,
    },
    "stages": [
        {"epochs": 2, "batch_size": 4, "schedule": "one_cycle"},
        {"epochs": 1, "batch_size": 4, "fine_tune_encoder": True},
    ],
    "search": {"beam_size": 2, "max_words": 8},
}


def run_commands(folder: Path) -> dict[str, set[int]]:
    """The lines of each chapter's module that the three commands execute."""
    seen = {path: set() for path in CHAPTERS}

    def trace(frame, event, argument):
        lines = seen.get(frame.f_code.co_filename)
        if lines is None:
            return None

        def line(frame, event, argument):
            lines.add(frame.f_lineno)
            return line

        return line(frame, event, argument)

    threading.settrace(trace)
    sys.settrace(trace)
    from captionlib import cli

    recipe, model = folder / "recipe.json", folder / "model"
    recipe.write_text(json.dumps(RECIPE))
    data = model / "scenes" / "dataset_scenes.json"
    images = model / "scenes" / "images"
    commands = [
        ["train", "--recipe", recipe, "--to", model],
        ["evaluate", "--model", model, "--karpathy-json", data]
        + ["--images", images, "--split", "val", "--json"],
        ["caption", "--model", model, "--save-figure", folder / "seen.png"],
    ]
    for words in commands:
        if words[0] == "caption":
            words.append(min(images.iterdir()))
        status = cli.main([*map(str, words)])
        assert status == 0, f"captionlib {words[0]} ended with {status}"
    sys.settrace(None)
    return {name: seen[path] for path, name in CHAPTERS.items()}


def statements(path: str) -> list[tuple[ast.stmt, range, str]]:
    """Every statement but docstrings: itself, the lines that begin it, the function around it."""
    found = []

    def visit(node, function):
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.stmt):
                text = isinstance(child, ast.Expr) and isinstance(
                    child.value, ast.Constant
                )
                body = getattr(child, "body", None)
                decorators = getattr(child, "decorator_list", [])
                first = min([child, *decorators], key=lambda n: n.lineno).lineno
                last = body[0].lineno - 1 if body else child.end_lineno
                if not text:
                    lines = range(first, max(first, last) + 1)
                    found.append((child, lines, function))
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inside = f"{function}.{child.name}".lstrip(".")
            visit(child, inside)

    visit(ast.parse(Path(path).read_text(encoding="utf-8")), "")
    return found


def test_the_commands_execute_most_of_the_chapters(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "lines.json").read_text())
    total = executed = 0
    report, never = [], []
    for path, name in CHAPTERS.items():
        seen, places = set(lines[name]), {}
        for _, begin, function in statements(path):
            places.setdefault(function, []).append(not seen.isdisjoint(begin))
        found = [hit for hits in places.values() for hit in hits]
        total, executed = total + len(found), executed + sum(found)
        report.append(f"{name} {sum(found)}/{len(found)}")
        never += [f"{name}.{f}" for f, hits in places.items() if not any(hits)]
    share = executed / total
    print(f"{executed}/{total} = {share:.1%}:", ", ".join(report))
    print("never run:", ", ".join(never))
    assert share >= AT_LEAST, f"{share:.1%} of the chapters; never: {never}"


if __name__ == "__main__":
    to = Path(sys.argv[1])
    lines = {name: sorted(seen) for name, seen in run_commands(to).items()}
    (to / "lines.json").write_text(json.dumps(lines))
