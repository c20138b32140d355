"""The gallery: open photographs, small, and a page that is what its folder says."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tools import gallery

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "book" / "gallery"
PHOTOGRAPHS = json.loads(
    (FOLDER / "photographs.json").read_text(encoding="utf-8")
)
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
PACKAGES = (  # in the order of the rule
    "KPhotoAlbum 6.2.0", "lomiri-wallpapers 20.04", "budgie-backgrounds 3.0",
    "Twenty Twenty-Four", "Twenty-Five", "scikit-image 0.26",
    "PyWavelets 1.9", "Wand 0.7.2",
)  # fmt: skip
OPEN = re.compile(r"CC0 1\.0|CC BY(-SA)? \d\.\d|public domain")


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda p: p["file"])
def test_a_photograph_is_small_and_open_and_its_source_is_named(photograph):
    assert OPEN.fullmatch(photograph["licence"])
    for key in ("licence_url", "source_url"):
        assert photograph[key].startswith("https://")
    for key in ("title", "author", "source", "changes"):
        assert len(photograph[key]) >= 4, key
    assert len(photograph["shows"].split()) >= 10  # its alt text
    assert (
        ";" in photograph["source"]
    )  # what it comes with; where the licence is stated
    path = FOLDER / photograph["file"]
    assert path.stat().st_size < 80_000
    with Image.open(path) as image:
        assert image.format == "JPEG" and max(image.size) <= 640
        assert not image.getexif()  # nobody's camera, place or time


def test_every_picture_in_the_folder_is_a_photograph_or_its_figure():
    files = {photograph["file"] for photograph in PHOTOGRAPHS}
    assert len(files) == len(PHOTOGRAPHS)
    stored = {path.name for path in FOLDER.iterdir() if path.suffix in PICTURES}
    assert stored == gallery.pictures(PHOTOGRAPHS)
    for name in stored - files:
        assert (FOLDER / name).stat().st_size <= gallery.BYTES, name


def test_the_list_is_that_of_the_rule():
    """Packages in the rule's order, each one's files by name; then strangers."""
    opening = (FOLDER / "opening.md").read_text(encoding="utf-8")
    rule = " ".join(opening.split())
    places = [rule.index(package) for package in PACKAGES]
    assert places == sorted(places)
    outdoors = [each for each in PHOTOGRAPHS if each["chosen"] == "outdoors"]
    named = []
    for each in outdoors:
        (package,) = [p for p in PACKAGES if p in each["source"]]
        file = each["source"].split("; ")[0].split(", ")[-1]
        named.append((PACKAGES.index(package), file))
    assert named == sorted(named) and {i for i, _ in named} == {*range(8)}
    strangers = PHOTOGRAPHS[len(outdoors) :]
    assert [each["chosen"] for each in strangers] == ["stranger"] * 6


def test_the_verdicts_are_counted():
    page = (ROOT / "book" / "gallery.md").read_text(encoding="utf-8")
    for verdict in gallery.VERDICTS:
        (counts,) = re.findall(
            rf"^\| \*\*{verdict}\*\*: [^|]* \| (\d+) \| (\d+) \|$",
            page,
            re.MULTILINE,
        )
        entries = page.count(f"\n**{verdict.capitalize()}.** ")
        judged = [each["verdict"] == verdict for each in PHOTOGRAPHS]
        assert sum(map(int, counts)) == entries == sum(judged)
    # Fifteen, says the rule.
    assert "\n| all | 15 | 6 |\n" in page and "fifteen photographs" in page


def test_pictures_have_alt_texts_and_the_page_keeps_the_lists_order():
    page = (ROOT / "book" / "gallery.md").read_text(encoding="utf-8")
    found = re.findall(
        r"^```\{figure\} gallery/(.*)\n:alt: (.*)$", page, re.MULTILINE
    )
    assert [name for name, _ in found] == [
        name
        for each in PHOTOGRAPHS
        for name in (each["file"], gallery.figure_of(each["file"]))
    ]
    assert all(len(alt.split()) >= 12 for _, alt in found)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A book with a gallery of one photograph, captioned by the toy captioner and judged."""
    book = tmp_path_factory.mktemp("book")
    (book / "gallery").mkdir()
    one = PHOTOGRAPHS[0] | {
        "judged": "an older caption",
        "verdict": "right",
        "notice": "Notice how it was.",
    }
    shutil.copy(FOLDER / one["file"], book / "gallery")
    shutil.copy(FOLDER / "opening.md", book / "gallery")
    gallery.write(book / "gallery" / "photographs.json", [one])
    assert gallery.main(["toy"], book) == 0
    return book


@pytest.fixture
def book(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "book"))


TOY = ROOT / "captionlib" / "assets" / "toy"


def judge(book: Path) -> None:
    """Write a verdict, as a person would, and make the page anew."""
    path = book / "gallery" / "photographs.json"
    photographs = gallery.read(path)
    photographs[0]["verdict"] = "wrong"
    photographs[0]["notice"] = "Notice how every word is wrong."
    gallery.write(path, photographs)
    assert gallery.main(["--page"], book) == 0


def test_a_new_caption_asks_for_a_new_verdict(book):
    photograph = gallery.read(book / "gallery" / "photographs.json")[0]
    said = gallery.read(book / "gallery" / "captions.json")["captions"][
        photograph["file"]
    ]
    assert photograph["judged"] == said["text"]
    assert photograph["verdict"] == photograph["notice"] == ""
    assert [
        "no verdict" in problem for problem in gallery.problems(book, TOY)
    ] == [True]
    judge(book)
    assert list(gallery.problems(book, TOY)) == []


def test_the_page_shows_caption_judgement_author_and_licence(book):
    judge(book)
    page, photograph = (
        (book / "gallery.md").read_text(encoding="utf-8"),
        PHOTOGRAPHS[0],
    )
    text = gallery.read(book / "gallery" / "photographs.json")[0]["judged"]
    assert f"> {text}\n" in page
    assert "**Wrong.** Notice how every word is wrong." in page
    assert "| **wrong**: it tells of something else | 1 | 0 |" in page
    for key in ("author", "licence_url", "source_url", "changes", "shows"):
        assert photograph[key] in page
    assert f":alt: A photograph: {photograph['shows']}.\n" in page
    figure = book / "gallery" / gallery.figure_of(photograph["file"])
    assert figure.stat().st_size <= gallery.BYTES
    with Image.open(figure) as image:
        assert image.width <= gallery.WIDTH
        # Transparent, for light and dark pages.
        assert image.convert("RGBA").getpixel((2, 2))[3] == 0


@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (
            lambda book: (book / "gallery.md").write_text("# Gallery\n"),
            "differs from",
        ),
        (
            lambda book: (book / "gallery" / "opening.md").write_text(
                "# Other\n"
            ),
            "differs from",
        ),
        (
            lambda book: (
                book / "gallery" / PHOTOGRAPHS[0]["file"]
            ).write_bytes(b"x"),
            "is not the",
        ),
        (
            lambda book: next((book / "gallery").glob("*-words.webp")).unlink(),
            "has no figure",
        ),
        (
            lambda book: (book / "gallery" / "captions.json").unlink(),
            "nothing is stored",
        ),
    ],
)
def test_a_stale_page_is_noticed(book, spoil, complaint):
    judge(book)
    spoil(book)
    said = list(gallery.problems(book, TOY))
    assert len(said) == 1 and complaint in said[0]


def test_captions_of_another_captioner_are_noticed(book, tmp_path):
    judge(book)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert [
        "are not those of" in said for said in gallery.problems(book, tmp_path)
    ] == [True]
    assert (
        list(gallery.problems(book, tmp_path / "none")) == []
    )  # nothing to compare with


def test_without_a_page_there_is_nothing_to_check(tmp_path):
    assert list(gallery.problems(tmp_path)) == []
