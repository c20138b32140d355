"""`captionlib caption` in a new process, against one that only imports
torch."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import Row, median_seconds
from captionlib.io.files import ASSETS

ROUNDS = 7


def main() -> list[Row]:
    """Time both in turn, print the times, and return the ratio of medians."""
    caption = [
        "-m",
        "captionlib.cli",
        "caption",
        str(ASSETS / "photograph.jpg"),
    ]

    def start(*arguments: str) -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    seconds = median_seconds(
        {
            "import": lambda: start("-c", "import torch"),
            "caption": lambda: start(*caption),
        },
        ROUNDS,
    )
    print(f"a new process, medians of {ROUNDS}, in turn")
    print(f"  import torch        {seconds['import']:.2f} s")
    print(f"  captionlib caption  {seconds['caption']:.2f} s")
    ratio = seconds["caption"] / seconds["import"]
    what = "captionlib caption, cold, against importing torch"
    return [Row(what, ratio, "×", 2, at_least=False)]


if __name__ == "__main__":
    main()
