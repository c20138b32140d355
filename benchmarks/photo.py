"""The shipped captioner: loading after imports, and captioning one
photograph."""

from __future__ import annotations

import torch

from benchmarks import Row, median_seconds
from captionlib.captioner import Captioner
from captionlib.io.files import ASSETS
from captionlib.io.images import read_image


def main() -> list[Row]:
    """Time loading, a caption and its parts; print them, return the table's
    rows."""
    photograph = ASSETS / "photograph.jpg"
    captioner = Captioner.from_pretrained()
    model = captioner.model
    pixels = torch.from_numpy(read_image(photograph))[None]

    @torch.inference_mode()
    def encode():
        return model.encode(pixels)

    seconds = median_seconds(
        {
            "load": Captioner.from_pretrained,
            "caption": lambda: captioner.caption(photograph),
            "read": lambda: read_image(photograph),
            "encode": encode,
        }
    )
    seconds["search"] = seconds["caption"] - seconds["read"] - seconds["encode"]
    print(f"the shipped captioner, {torch.get_num_threads()} threads")
    print(f"  loaded in {seconds['load']:.2f} s after imports")
    parts = ", ".join(
        f"{name} {1000 * seconds[name]:.0f}"
        for name in ("read", "encode", "search")
    )
    print(f"  a photograph takes {1000 * seconds['caption']:.0f} ms: {parts}")
    return [
        Row(
            "loading the captioner that ships",
            seconds["load"],
            "s",
            3,
            at_least=False,
        ),
        Row(
            "captioning a photograph with it",
            seconds["caption"],
            "s",
            0.5,
            at_least=False,
        ),
    ]


if __name__ == "__main__":
    main()
