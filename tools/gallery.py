"""Make the gallery, book/gallery.md: `python -m tools.gallery [FOLDER]`.

The tool captions the photographs in book/gallery/ with the captioner in FOLDER,
by default the shipped one. photographs.json and opening.md, the start of the
page, are written by hand; captions.json and a figure for each photograph are
generated. The page is made of all of these. Covering the photographs part by
part takes most of the time, some ten seconds each.

In photographs.json, a person judges each caption: "verdict" is one of VERDICTS,
"notice" says what to notice, "judged" is the caption that was judged. If the
caption changes, the tool clears both, and `make check` asks for new ones. Once
they are written, `python -m tools.gallery --page` writes only the page, from
the stored files.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BOOK = Path(__file__).parent.parent / "book"
SHIPPED = Path(__file__).parent.parent / "captionlib" / "assets" / "flickr8k"
WIDTH = 960  # width of a figure in pixels
BYTES = 95_000  # maximum size of a figure
NOTE = (
    "<!-- written by tools.gallery, from the folder gallery/: do not edit -->"
)
VERDICTS = {
    "right": "everything it says is there",
    "nearly right": "one thing it says is not there",
    "half right": "some of it is there, and more than one thing is not",
    "wrong": "it tells of something else",
}
GROUPS = {
    "outdoors": "People and dogs outdoors",
    "stranger": "Six strangers",
}
WORDS = 4  # words in a figure, at most
SMALL = 0.2  # nats; a smaller fall is not drawn
# Other pages show the attention alone of these.
ELSEWHERE = ("dog-in-the-wood.jpg", "polar-bear.jpg")


class Word(NamedTuple):
    """A word of a caption, with its two maps."""

    word: str
    looked: object  # (h, w) attention, sums to 1
    needed: object  # (PLACES, PLACES) nats lost by covering, not below 0

    @property
    def peak(self) -> float:
        """The largest attention, in multiples of an even share."""
        return float(self.looked.max() * self.looked.size)

    @property
    def factor(self) -> float:
        """How many times less likely the word becomes, at worst."""
        return math.exp(float(self.needed.max()))


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_of(folder: Path) -> str:
    """The SHA-256 of all of a captioner's weights; "" if there are none."""
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest() * (
        len(files) > 0
    )


def read(path: Path):
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, what) -> None:
    """Write a JSON file that people can read and edit."""
    text = json.dumps(what, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def figure_of(file: str) -> str:
    """The name of a photograph's figure."""
    return f"{Path(file).stem}-words.webp"


def attention_of(file: str) -> str:
    """The name of a figure with the attention alone."""
    return f"{Path(file).stem}-attention.webp"


def pictures(photographs: list[dict]) -> set[str]:
    """The names of all pictures in the folder."""
    files = [photograph["file"] for photograph in photographs]
    return {
        *files,
        *map(figure_of, files),
        *(attention_of(file) for file in files if file in ELSEWHERE),
    }


def caption_all(gallery: Path, folder: str | None) -> None:
    """Caption every photograph, draw its figures, and store all of it.

    Args:
        gallery: the folder with photographs.json; captions.json and the figures
            go there.
        folder: the captioner; None means the shipped one.
    """
    from captionlib.captioner import Captioner
    from captionlib.io.files import package_folder

    captioner = Captioner.from_pretrained(folder)
    photographs = read(gallery / "photographs.json")
    said = {}
    for photograph in photographs:
        path = gallery / photograph["file"]
        caption = captioner.caption(path)
        words = look(captioner.model, path, caption)
        draw(gallery, path, caption, words)
        said[path.name] = {
            "text": caption.text,
            "log_prob": round(caption.log_prob, 2),
            "finished": caption.finished,
            "photograph": digest(path),
            "words": [
                [each.word, round(each.peak, 1), round(each.factor, 1)]
                for each in words
            ],
        }
        if photograph["judged"] != caption.text:
            photograph["judged"] = caption.text
            photograph["verdict"] = photograph["notice"] = ""
        print(f"{path.name}: {caption.text}", flush=True)
    write(gallery / "photographs.json", photographs)
    model = {
        "name": Path(folder).name if folder else SHIPPED.name,
        "weights": weights_of(package_folder(folder or SHIPPED)),
    }
    write(gallery / "captions.json", {"model": model, "captions": said})


def look(model, path: Path, caption) -> list[Word]:
    """The content words of a caption, with their maps: at most WORDS, those
    that lose most when something is covered."""
    import torch

    from captionlib.book.occlusion import occlusion
    from captionlib.io.images import read_image
    from captionlib.visualize import content_words

    ids = [model.vocabulary.word_map[word] for word in caption.words]
    falls = occlusion(model, torch.from_numpy(read_image(path)), ids).clip(0)
    shown = sorted(content_words(caption.words), key=lambda i: -falls[i].max())
    return [
        Word(caption.words[i], caption.alphas[i], falls[i])
        for i in sorted(shown[:WORDS])
    ]


def draw(gallery: Path, path: Path, caption, words: list[Word]) -> None:
    """Store a photograph's figures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from captionlib.book.style import STYLE
    from captionlib.visualize import show_attention

    with plt.rc_context(STYLE):
        figures = {figure_of(path.name): show_words(path, words)}
        if path.name in ELSEWHERE:
            figures[attention_of(path.name)] = show_attention(path, caption)
        for name, figure in figures.items():
            (gallery / name).write_bytes(as_webp(figure))
            plt.close(figure)


def show_words(path: Path, words: list[Word]):
    """A row for each word: where it looked, and what it needed."""
    import matplotlib.pyplot as plt
    import numpy as np

    from captionlib.book.style import PALETTE
    from captionlib.io.images import open_rgb
    from captionlib.visualize import draw_lit, upsample_alpha

    photograph = open_rgb(path)
    photograph.thumbnail((480, 480))
    pixels = np.asarray(photograph, dtype=np.float32) / 255
    size = pixels.shape[:2]
    tall = min(2.4 * size[0] / size[1], 2.6) + 0.35  # inches
    figure, rows = plt.subplots(
        len(words),
        2,
        figsize=(4.8, tall * len(words)),
        layout="constrained",
        squeeze=False,
    )
    # One scale for all words of a caption.
    brightest = [
        max(each.looked.max() for each in words),
        max(0.5, *(each.needed.max() for each in words)),
    ]
    for each, panels in zip(words, rows, strict=True):
        needed = each.needed * (each.needed.max() >= SMALL)
        maps = (each.looked, needed)
        for axes, weights, top in zip(panels, maps, brightest, strict=True):
            axes.axis("off")
            draw_lit(axes, pixels, upsample_alpha(weights, size), top)
        title = {"fontsize": 11, "pad": 3, "parse_math": False}
        panels[0].set_title(
            each.word, loc="left", color=PALETTE["word"], **title
        )
        said = (f"looked ×{each.peak:.1f}", f"needed ÷{each.factor:.1f}")
        for axes, text in zip(panels, said, strict=True):
            axes.set_title(
                text, loc="right", color=PALETTE["attention"], **title
            )
    return figure


def as_webp(figure, width: int = WIDTH, most: int = BYTES) -> bytes:
    """Encode a figure, `width` pixels wide, in at most `most` bytes if
    possible."""
    from PIL import Image

    drawn = io.BytesIO()
    dpi = width / figure.get_figwidth()
    figure.savefig(drawn, format="png", dpi=dpi, facecolor="none")
    image = Image.open(drawn)
    for quality in range(84, 20, -6):
        stored = io.BytesIO()
        image.save(stored, "WEBP", quality=quality, method=6)
        if stored.tell() <= most:
            break
    return stored.getvalue()


def render(gallery: Path) -> str:
    """The page, made of stored files without a captioner."""
    stored = read(gallery / "captions.json")
    photographs = read(gallery / "photographs.json")
    opening = (gallery / "opening.md").read_text(encoding="utf-8").strip()
    table = "\n".join(count(photographs))
    lines = [NOTE, "", opening.replace("VERDICTS", table), ""]
    for group, heading in GROUPS.items():
        lines += [f"## {heading}", ""]
        for photograph in photographs:
            if photograph["chosen"] == group:
                said = stored["captions"][photograph["file"]]
                lines += _entry(photograph, said)
    name = stored["model"]["name"]
    lines += [
        f"The captions are those of the captioner `{name}`, with its own "
        "search settings.",
        "",
    ]
    return "\n".join(lines)


def count(photographs: list[dict]) -> list[str]:
    """The verdicts, counted in a table."""
    lines = ["| verdict | outdoors | strangers |", "| --- | ---: | ---: |"]
    for verdict, meaning in VERDICTS.items():
        of_group = [
            str(_among(photographs, chosen=group, verdict=verdict))
            for group in GROUPS
        ]
        lines.append(f"| **{verdict}**: {meaning} | {' | '.join(of_group)} |")
    sums = [str(_among(photographs, chosen=group)) for group in GROUPS]
    return [*lines, f"| all | {' | '.join(sums)} |"]


def _among(photographs: list[dict], **wanted) -> int:
    """How many photographs have all of the wanted values."""
    return sum(wanted.items() <= each.items() for each in photographs)


def _entry(photograph: dict, said: dict) -> list[str]:
    """One photograph: caption, figure, verdict, source."""
    text = said["text"] + ("" if said["finished"] else " … (unfinished)")
    package, licence = photograph["source"].split("; ")
    verdict = photograph["verdict"] or "not judged yet"
    words = "; ".join(
        f"{word}: looked ×{looked}, needed ÷{needed}"
        for word, looked, needed in said["words"]
    )
    return [
        f"### {photograph['title']}",
        "",
        f"```{{figure}} gallery/{photograph['file']}",
        f":alt: A photograph: {photograph['shows']}.",
        "```",
        "",
        f"> {text}",
        "",
        f"```{{figure}} gallery/{figure_of(photograph['file'])}",
        ":alt: The photograph twice for each of some words of the caption, "
        "bright where the captioner looked, and bright where covering the "
        f"photograph makes the word less likely. {words}.",
        ":width: 640px",
        "```",
        "",
        f"**{verdict.capitalize()}.** {photograph['notice']} "
        f"*Log-probability {_signed(said['log_prob'])}.*",
        "",
        f"*Photograph: {photograph['author']}, "
        f"[{photograph['licence']}]({photograph['licence_url']}). "
        f"From [{package}]({photograph['source_url']}); {licence}. "
        f"Changes: {photograph['changes']}.*",
        "",
    ]


def _signed(number: float) -> str:
    return f"{number:.1f}".replace("-", "\u2212")


def problems(book: Path = BOOK, shipped: Path = SHIPPED) -> Iterator[str]:
    """Disagreements between the page, its folder and the shipped captioner."""
    page, gallery = book / "gallery.md", book / "gallery"
    if not page.exists():  # no gallery yet
        return
    again = "run `python -m tools.gallery`"
    if not (gallery / "captions.json").exists():
        yield f"{page}: nothing is stored that it could be made of: {again}"
        return
    stored = read(gallery / "captions.json")
    weights = weights_of(shipped)
    if weights and stored["model"]["weights"] != weights:
        yield f"{page}: its captions are not those of {shipped}: {again}"
    complete = True
    for photograph in read(gallery / "photographs.json"):
        path = gallery / photograph["file"]
        said = stored["captions"].get(photograph["file"])
        if (
            said is None
            or not path.exists()
            or said["photograph"] != digest(path)
        ):
            yield f"{path}: is not the photograph that was captioned: {again}"
            complete = False
        elif not (gallery / figure_of(path.name)).exists():
            yield f"{path}: has no figure: {again}"
        elif (
            photograph["judged"] != said["text"]
            or photograph["verdict"] not in VERDICTS
            or not photograph["notice"]
        ):
            yield f"{path}: its caption has no verdict: write one into photographs.json"
    if complete and page.read_text(encoding="utf-8") != render(gallery):
        yield f"{page}: differs from book/gallery/: run `python -m tools.gallery --page`"


def main(argv: list[str], book: Path = BOOK) -> int:
    """Caption the photographs, unless `--page` is given, and write the page."""
    if len(argv) > 1 or (
        argv and argv[0].startswith("-") and argv != ["--page"]
    ):
        print(__doc__)
        return 2
    if argv != ["--page"]:
        caption_all(book / "gallery", *(argv or [None]))
    (book / "gallery.md").write_text(render(book / "gallery"), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
