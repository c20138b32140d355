"""Make the gallery, book/gallery.md: `python -m tools.gallery [FOLDER]`.

The tool captions the photographs in book/gallery/ with the captioner in FOLDER,
by default the shipped one. photographs.json and opening.md, the start of the
page, are written by hand; captions.json and a figure for each photograph are
generated. The page is made of all of these.

In photographs.json, a person judges each caption under "verdict"; "judged" is
the caption that was judged. If the caption changes, the tool clears the
verdict, and `make check` asks for a new one. Once the verdicts are written,
`python -m tools.gallery --page` writes only the page, from the stored files.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

BOOK = Path(__file__).parent.parent / "book"
SHIPPED = Path(__file__).parent.parent / "captionlib" / "assets" / "flickr8k"
WIDTH = 960  # width of a figure in pixels
BYTES = 120_000  # maximum size of a figure
NOTE = (
    "<!-- written by tools.gallery, from the folder gallery/: do not edit -->"
)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path):
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, what) -> None:
    """Write a JSON file that people can read and edit."""
    text = json.dumps(what, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def figure_of(file: str) -> str:
    """The name of a photograph's figure."""
    return f"{Path(file).stem}-attention.webp"


def caption_all(gallery: Path, folder: str | None) -> None:
    """Caption every photograph, draw its figure, and store both.

    Args:
        gallery: the folder with photographs.json; captions.json and the figures
            go there.
        folder: the captioner; None means the shipped one.
    """
    from captionlib.captioner import Captioner
    from captionlib.io.files import package_folder

    captioner = Captioner.from_pretrained(folder)
    weights = (
        package_folder(SHIPPED if folder is None else folder)
        / "model.safetensors"
    )
    photographs = read(gallery / "photographs.json")
    said = {}
    for photograph in photographs:
        path = gallery / photograph["file"]
        caption = captioner.caption(path)
        (gallery / figure_of(path.name)).write_bytes(_figure(path, caption))
        said[path.name] = {
            "text": caption.text,
            "log_prob": round(caption.log_prob, 2),
            "finished": caption.finished,
            "photograph": digest(path),
        }
        if photograph["judged"] != caption.text:
            photograph["judged"], photograph["verdict"] = caption.text, ""
        print(f"{path.name}: {caption.text}")
    write(gallery / "photographs.json", photographs)
    model = {
        "name": Path(folder).name if folder else SHIPPED.name,
        "weights": digest(weights),
    }
    write(gallery / "captions.json", {"model": model, "captions": said})


def _figure(path: Path, caption) -> bytes:
    """The attention of a caption as a small WebP picture, transparent."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from captionlib.visualize import show_attention

    figure = show_attention(path, caption)
    drawn = as_webp(figure)
    plt.close(figure)
    return drawn


def as_webp(figure, width: int = WIDTH, most: int = BYTES) -> bytes:
    """Encode a figure, `width` pixels wide, in at most `most` bytes if
    possible."""
    from PIL import Image

    drawn = io.BytesIO()
    dpi = width / figure.get_figwidth()
    figure.savefig(drawn, format="png", dpi=dpi, facecolor="none")
    image = Image.open(drawn)
    for quality in range(84, 30, -6):
        stored = io.BytesIO()
        image.save(stored, "WEBP", quality=quality, method=6)
        if stored.tell() <= most:
            break
    return stored.getvalue()


def render(gallery: Path) -> str:
    """The page, made of stored files without a captioner."""
    stored = read(gallery / "captions.json")
    lines = [
        NOTE,
        "",
        (gallery / "opening.md").read_text(encoding="utf-8").strip(),
        "",
    ]
    for photograph in read(gallery / "photographs.json"):
        lines += _entry(photograph, stored["captions"][photograph["file"]])
    name = stored["model"]["name"]
    lines += [
        f"The captions are those of the captioner `{name}`, with its own "
        "search settings.",
        "",
    ]
    return "\n".join(lines)


def _entry(photograph: dict, said: dict) -> list[str]:
    """One photograph: figure, caption, verdict, source."""
    text = said["text"] + ("" if said["finished"] else " … (unfinished)")
    package, licence = photograph["source"].split("; ")
    verdict = photograph["verdict"] or "Not judged yet."
    return [
        f"## {photograph['title']}",
        "",
        f"```{{figure}} gallery/{figure_of(photograph['file'])}",
        f":alt: A photograph: {photograph['shows']}. Then the same photograph, "
        f'once for each content word of the caption "{text}", bright where the '
        "captioner looked and dim elsewhere.",
        ":width: 560px",
        "```",
        "",
        f"> {text}",
        "",
        f"Log-probability {_signed(said['log_prob'])}. {verdict}",
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
    weights = shipped / "model.safetensors"
    if weights.exists() and stored["model"]["weights"] != digest(weights):
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
        elif photograph["judged"] != said["text"] or not photograph["verdict"]:
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
