"""The page "Try it", by mouse, keyboard and touch: `make site-test`.

The toy captioner stands in for the large one where any will do.
"""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import test_site
import torch
from PIL import Image, ImageCms
from playwright.sync_api import expect

from captionlib.captioner import SHIPPED, Captioner
from captionlib.config import DecodingConfig
from captionlib.io.images import read_image
from captionlib.io.karpathy import read_karpathy
from captionlib.model import CaptionModel
from captionlib.page import Sample, round_weights, write_page
from tools.try_it import compare, through_page

pytestmark = pytest.mark.site
GALLERY = Path(__file__).parent.parent / "book" / "gallery"
DOG = GALLERY / "dog-in-the-wood.jpg"
ADDRESS = "book/try_it.html"
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def captioner():
    toy = Captioner.from_pretrained("toy")
    return Captioner(round_weights(toy.model, "int8"), toy.search)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page of the toy captioner, on disk."""
    folder = tmp_path_factory.mktemp("page")
    samples = [Sample(DOG, "a black dog"), Sample(GALLERY / "rocket.jpg", "?")]
    write_page(Captioner.from_pretrained("toy").model, folder, samples)
    return folder


class Page:
    """The page in a window of its own."""

    def __init__(self, browser, folder: Path, **window):
        self.context = browser.new_context(reduced_motion="reduce", **window)
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.problems, self.requests = [], []
        self.page.on("pageerror", lambda e: self.problems.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto((folder / "index.html").as_uri())

    def part(self, name: str):
        return self.page.locator(f'.clt [data-part="{name}"]')

    def give(self, *files) -> None:
        self.part("file").set_input_files(*files)

    def says(self, pattern: str) -> str:
        expect(self.part("status")).to_have_text(re.compile(pattern))
        return self.part("status").text_content()

    def caption(self) -> str:
        words = self.part("words").locator("button")
        marks = " (changed)"
        return " ".join(words.all_text_contents()).replace(marks, "")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
        assert not self.problems


@pytest.fixture
def page(browser, folder):
    with Page(browser, folder) as page:
        yield page


def as_file(name: str, image: Image.Image | bytes, **options) -> dict:
    """A file to choose, written by Pillow."""
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, **options)
        image = buffer.getvalue()
    return {"name": name, "mimeType": "image/png", "buffer": image}


# ---------------------------------------------------------------------- choosing


def test_a_sample_is_captioned_as_in_python(page, captioner):
    assert not [url for url in page.requests if "weights" in url]
    page.page.locator(".clt-samples button").first.click()
    page.says("dog in the wood: “")
    expected = captioner.caption(DOG)
    assert page.caption() == expected.text
    assert (
        page.part("status")
        .text_content()
        .endswith(f"{expected.log_prob:.2f} nats.".replace("-", "−"))
    )
    assert len([url for url in page.requests if "weights" in url]) > 3


def test_nothing_leaves_the_browser(page):
    page.give(DOG)
    page.says("jpg: “")
    assert all(url.startswith(("file:", "data:")) for url in page.requests)


def test_a_second_photograph_loads_nothing_more(page):
    page.give(DOG)
    page.says("dog-in-the-wood.jpg: “")
    loaded = len(page.requests)
    page.give(GALLERY / "rocket.jpg")
    page.says("rocket.jpg: “")
    assert len(page.requests) == loaded


def test_a_photograph_can_be_dropped_and_pasted(page, captioner):
    script = """([text, kind]) => {
      const data = new DataTransfer();
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      data.items.add(new File([bytes], `${kind}.jpg`, { type: "image/jpeg" }));
      const event = kind === "drop"
        ? new DragEvent("drop", { dataTransfer: data, bubbles: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
      document.querySelector(".clt-samples").dispatchEvent(event);
    }"""
    text = base64.b64encode(DOG.read_bytes()).decode()
    for kind in ("drop", "paste"):
        page.page.evaluate(script, [text, kind])
        page.says(f"{kind}.jpg: “")
        assert page.caption() == captioner.caption(DOG).text


def test_the_sharpest_map_is_shown_first(page, captioner):
    page.give(DOG)
    page.says("jpg: “")
    caption = captioner.caption(DOG)
    pressed = page.part("words").locator("li:has([aria-pressed=true])")
    place = pressed.evaluate("e => [...e.parentNode.children].indexOf(e)")
    assert place == caption.alphas.max(axis=(1, 2)).argmax()


def odd_files() -> dict:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8))
    deep = Image.fromarray(
        (np.arange(60 * 40) * 27 % 65536).astype(np.uint16).reshape(40, 60)
    )
    turned = Image.Exif()
    turned[0x0112] = 6
    photograph = Image.open(DOG)
    clear = photograph.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "one pixel.png": as_file(
            "one pixel.png", noise.crop((0, 0, 1, 1)), format="PNG"
        ),
        "long.png": as_file(
            "long.png", noise.resize((20_000, 10)), format="PNG"
        ),
        "deep.png": as_file("deep.png", deep, format="PNG"),
        "turned.jpg": as_file(
            "turned.jpg", photograph, format="JPEG", exif=turned
        ),
        "moving.gif": as_file(
            "moving.gif",
            photograph.resize((99, 66)),
            format="GIF",
            save_all=True,
            append_images=[noise.resize((99, 66))],
        ),
        "clear.png": as_file("clear.png", clear, format="PNG"),
        "grey.webp": as_file(
            "grey.webp", photograph.convert("L"), format="WEBP", lossless=True
        ),
        "own colours.png": as_file(
            "own colours.png", photograph, format="PNG", icc_profile=own
        ),
    }


@pytest.mark.parametrize("name", odd_files())
def test_an_odd_image_is_captioned_as_in_python(
    name, page, captioner, tmp_path
):
    file = odd_files()[name]
    (tmp_path / name).write_bytes(file["buffer"])
    page.give(file)
    page.says(f"{re.escape(name)}: “")
    assert page.caption() == captioner.caption(tmp_path / name).text


@pytest.mark.parametrize("data", [b"dear diary", b"", DOG.read_bytes()[:100]])
def test_what_is_no_image_gets_one_line(page, data):
    page.give(as_file("notes.jpg", data))
    page.says("^notes.jpg: is not an image that this browser can read")
    expect(page.part("result")).to_be_hidden()
    page.give(DOG)
    page.says("jpg: “")


def test_missing_weights_get_one_line_and_a_second_try(browser, folder):
    lost = folder / "weights-1.js"
    data = lost.read_bytes()
    lost.unlink()
    try:
        with Page(browser, folder) as page:
            page.give(DOG)
            page.says("weights-1.js can’t be loaded")
            expect(page.part("progress")).to_be_hidden()
            lost.write_bytes(data)
            page.give(GALLERY / "rocket.jpg")
            page.says("jpg: “")
    finally:
        lost.write_bytes(data)


# -------------------------------------------------------------------- the caption


def veil(page: Page, which: str = "") -> np.ndarray:
    """How dark the picture is, (72, 72), 0 to 1."""
    script = """c => [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]"""
    found = page.part(f"veil{which}").evaluate(script)
    return np.reshape(found, (72, 72, 4))[..., 3] / 208


def test_a_word_shows_its_map_and_that_of_the_word_before(page, captioner):
    from captionlib.visualize import upsample_alpha

    page.give(DOG)
    page.says("jpg: “")
    caption = captioner.caption(DOG)
    page.page.locator("[data-beside=before]").click()
    page.part("words").locator("button").nth(2).focus()
    page.press("Enter")
    for which, word in (("", 2), ("-2", 1)):
        drawn = upsample_alpha(caption.alphas[word], (72, 72))
        light = np.sqrt(drawn / caption.alphas.max())
        np.testing.assert_allclose(veil(page, which), 1 - light, atol=0.02)
        times = f"{caption.alphas[word].max() * 64:.1f} times"
        says = page.part(f"says{which}").text_content()
        assert says.startswith(f"{caption.words[word]}: ") and times in says
    pressed = page.part("words").locator("[aria-pressed=true]")
    assert pressed.all_text_contents() == [caption.words[2]]
    page.part("words").locator("button").first.click()
    assert page.part("says-2").text_content() == "This is the first word."


def test_what_is_painted_out_is_gone_and_changed_words_are_marked(
    page, captioner
):
    page.give(DOG)
    page.says("jpg: “")
    before = page.caption()
    page.part("brush").click()
    page.part("radius").fill("25")
    page.part("surface").scroll_into_view_if_needed()
    box = page.part("surface").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    page.page.mouse.up()
    expect(page.part("before")).to_be_visible()
    assert page.part("before").text_content() == f"Unpainted: {before}"
    after = page.caption()
    assert after != before
    marked = page.part("words").locator("mark").all_text_contents()
    kept = page.part("words").locator("button:not(:has(mark))")
    assert marked and all(word.endswith("(changed)") for word in marked)
    assert all(w in before.split() for w in kept.all_text_contents())

    pixels = read_image(DOG)
    row, column = np.mgrid[:256, :256] + 0.5
    high = 426 / 640  # a disc in a picture that is not square
    far = np.hypot(column / 256 - 0.5, (row / 256 - 0.5) * high)
    pixels[:, far < 0.25] = 128
    assert after == captioner.caption(pixels).text

    page.part("undo").click()
    assert page.caption() == before
    expect(page.part("before")).to_be_hidden()


def test_the_brush_works_by_keyboard(page):
    page.give(DOG)
    page.says("jpg: “")
    before = page.caption()
    page.part("radius").fill("25")
    page.part("brush").focus()
    page.press("Enter")
    assert page.part("surface").evaluate("e => e === document.activeElement")
    page.press("ArrowLeft", "ArrowUp", "Space")
    expect(page.part("before")).to_be_visible()
    painted = page.part("photo").evaluate(
        """c => [...c.getContext("2d").getImageData(
          Math.round(0.45 * c.width), Math.round(0.45 * c.height), 1, 1).data]"""
    )
    assert painted == [128, 128, 128, 255]
    page.press("Backspace")
    expect(page.part("before")).to_be_hidden()
    assert page.caption() == before


def test_covering_shows_which_part_a_word_needs(page):
    page.give(DOG)
    page.says("jpg: “")
    page.page.locator("[data-beside=occlusion]").click()
    page.says("Covered every part once")
    expect(page.part("covering")).to_be_hidden()
    last = page.part("words").locator("button").last
    last.click()
    assert page.part("says-2").text_content().startswith(last.text_content())
    assert veil(page, "-2").max() > 0.5


def test_choosing_another_photograph_ends_the_covering(page):
    page.give(DOG)
    page.says("jpg: “")
    page.page.locator("[data-beside=occlusion]").click()
    page.give(GALLERY / "rocket.jpg")
    page.says("rocket.jpg: “")
    page.page.wait_for_timeout(500)
    expect(page.part("covering")).to_be_hidden()
    page.says("rocket.jpg: “")


def test_a_caption_without_words_breaks_nothing(browser, tmp_path):
    model = CaptionModel.load("toy")
    with torch.no_grad():
        model.decoder.fc.bias[model.vocabulary.end] = 100
    write_page(model, tmp_path)
    with Page(browser, tmp_path) as page:
        page.give(DOG)
        page.says("jpg: “”")
        page.part("brush").click()
        page.part("surface").click()
        page.page.locator("[data-beside=occlusion]").click()
        page.says("Covered")
        page.part("draw").click()


# ------------------------------------------------------------- search and sampling


def test_k_is_set_by_keyboard_and_the_tree_grows(page, captioner):
    page.give(DOG)
    page.says("jpg: “")
    page.part("k").focus()
    page.press("Home")
    for k in (1, 2, 3, 4):
        expect(page.part("k-label")).to_have_text(f"Beam size k = {k}")
        expected = captioner.caption(DOG, beam_size=k)
        assert page.caption() == expected.text
        last = page.part("search").locator("input[type=range]").input_value()
        assert int(last) >= len(expected.words)
        page.press("ArrowRight")
    page.part("search").locator("input[type=range]").focus()
    page.press("Home")
    nodes = page.part("search").locator("[data-step]")
    shown = "ns => ns.filter(n => n.style.visibility !== 'hidden').map(n => +n.dataset.step)"
    for step in range(int(last) + 1):
        assert max(nodes.evaluate_all(shown)) == step
        listed = page.part("search").locator(".clv-beams li").count()
        assert listed == nodes.evaluate_all(shown).count(step)
        page.press("ArrowRight")
    assert page.part("search").locator(".won").count() == int(last) + 1 or (
        page.part("search").locator(".won").count() > 2
    )


@pytest.mark.parametrize("key", ["Home", "End"])
def test_captions_are_drawn_at_a_temperature(page, captioner, monkeypatch, key):
    page.page.evaluate("() => { Math.random = () => 0.6; }")
    page.give(DOG)
    page.says("jpg: “")
    page.part("temperature").focus()
    page.press(key)
    page.part("draw").click()
    temperature = {"Home": 0.1, "End": 2.0}[key]
    label = page.part("temperature-label").text_content()
    assert label == f"Temperature {temperature}"
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.full(size, 0.6))
    search = DecodingConfig(
        beam_size=1, max_words=30, sample=True, temperature=temperature
    )
    expected = Captioner(captioner.model, search).caption(DOG)
    shown = f"{expected.text}\n{expected.log_prob:.2f}".replace("-", "−")
    assert page.part("drawn").locator("li").all_inner_texts() == [shown] * 5


# -------------------------------------------------------------- looks, fingers, ears


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_the_book_it_fits_and_can_be_heard(browser, theme, width):
    with test_site.Visit(browser, ADDRESS, theme, width) as visit:
        visit.page.locator(".clt-samples button").first.click()
        result = visit.page.locator(".clt [data-part=result]")
        expect(result).to_be_visible(timeout=60_000)
        visit.page.locator("[data-beside=before]").click()
        visit.page.locator("[data-part=brush]").click()
        visit.page.locator("[data-part=draw]").click()
        assert visit.ask(test_site.SIDEWAYS) <= 0
        small = visit.page.locator(".clt").evaluate(
            """e => [...e.querySelectorAll('button, input')].filter(b => {
            const {width, height} = b.closest('label, button').getBoundingClientRect();
            return b.checkVisibility() && (width < 24 || height < 24);
            }).map(b => b.outerHTML)"""
        )
        assert not small, "too small for a finger"
        assert not test_site.violations(visit)
        assert not visit.problems


def test_in_the_book_nothing_is_loaded_before_it_is_asked_for(browser):
    with test_site.Visit(browser, ADDRESS) as visit:
        names = {Path(url).name for url in visit.loaded}
        assert "captioner.js" in names
        assert not {n for n in names if n.startswith(("weights", "model"))}
        assert visit.weight() < 440_000  # of which captioner.js is 60 kB


def test_no_other_page_loads_the_captioner():
    found = [
        page
        for page in test_site.pages()
        if 'src="../captioner/captioner.js"'
        in (test_site.SITE / page).read_text()
    ]
    assert found == [ADDRESS]


def test_a_finger_paints_and_presses(browser, folder):
    window = {"viewport": {"width": 390, "height": 800}, "has_touch": True}
    with Page(browser, folder, **window) as page:
        page.page.locator(".clt-samples button").first.tap()
        page.says("wood: “")
        page.part("words").locator("button").nth(1).tap()
        page.part("brush").tap()
        assert (
            page.part("surface").evaluate("e => e.style.touchAction") == "none"
        )
        page.part("radius").fill("25")
        page.part("surface").tap()
        expect(page.part("before")).to_be_visible()
        page.part("brush").tap()
        assert page.part("surface").evaluate("e => e.style.touchAction") == ""


def test_without_scripts_a_picture_and_a_sentence_are_there(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{test_site.SITE.as_uri()}/{ADDRESS}")
    assert page.locator(".clt").is_hidden()
    assert page.locator(".clt-still img").is_visible()
    assert page.get_by_text("needs JavaScript").is_visible()
    context.close()


# ------------------------------------------------------------------ held to Python


@pytest.mark.skipif(
    "FLICKR8K_DIR" not in os.environ,
    reason="Flickr8k's terms keep its photographs out of git",
)
def test_two_hundred_photographs_are_captioned_as_in_python(browser, tally):
    flickr8k = Path(os.environ["FLICKR8K_DIR"])
    records = read_karpathy(
        flickr8k / "dataset_flickr8k.json",
        flickr8k / "Flicker8k_Dataset",
        "val",
    )
    paths = [record.path for record in records][:200]
    shipped = Captioner.from_pretrained()
    first = CaptionModel.load(SHIPPED, member=0)
    python = Captioner(round_weights(first, "int8"), shipped.search)
    with test_site.Visit(browser, ADDRESS) as visit:
        found = compare(python, paths, through_page(visit.page, paths))
    # Scaled-down chroma and tall pictures are rounded differently.
    assert found["equal"] >= 0.98 * len(paths), found["others"]
    assert found["nats"] < 0.05
    tally(photographs_through_the_page=len(paths))
