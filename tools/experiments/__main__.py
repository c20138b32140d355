"""Run one experiment: `python -m tools.experiments own_data --help`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if not path.stem.startswith("_")
)


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in NAMES:
        print(f"python -m tools.experiments NAME, one of {', '.join(NAMES)}")
        return 2
    return import_module(f"tools.experiments.{arguments[0]}").main(
        arguments[1:]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
