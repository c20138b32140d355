"""Pictures of attention: maps lie over the photograph honestly, and are drawn without a display."""

import os
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from captionlib.captioner import Caption, Captioner
from captionlib.io.files import InputError, read_json
from captionlib.toy.scenes import write_scenes
from captionlib.visualize import (
    FUNCTION_WORDS,
    content_words,
    half_of_weight,
    show_attention,
    upsample_alpha,
)


@pytest.fixture
def photograph():
    ramp = np.linspace(0, 255, 60 * 90 * 3).reshape(60, 90, 3)
    return ramp.astype(np.uint8)


def make_caption(alphas, words=None, finished=True) -> Caption:
    words = words or [f"word{n}" for n in range(len(alphas))]
    return Caption(
        words, " ".join(words), -1.0, np.asarray(alphas, np.float32), finished
    )


def random_alphas(words, height=8, width=8):
    logits = np.random.default_rng(0).normal(size=(words, height * width))
    weights = np.exp(logits)
    return (weights / weights.sum(1, keepdims=True)).reshape(
        words, height, width
    )


def word_panels(figure):
    return [axes for axes in figure.axes if axes.get_title("left")]


def word_of(axes):
    return axes.get_title("left")


def test_the_callers_picture_keeps_its_size(tmp_path):
    picture = Image.new("RGB", (900, 600), "white")
    show_attention(
        picture, make_caption(random_alphas(1)), to=tmp_path / "seen.png"
    )
    assert picture.size == (900, 600)


# --------------------------------------------------------------------------------------- the maps


def test_raw_map_repeats_each_cell():
    alpha = random_alphas(1, 3, 5)[0]
    expected = np.kron(alpha, np.ones((4, 2)))
    np.testing.assert_array_equal(
        upsample_alpha(alpha, (12, 10), smooth=False),
        expected.astype(np.float32),
    )


@pytest.mark.parametrize("cells", [(7, 7), (8, 8), (14, 14), (3, 9), (1, 1)])
@pytest.mark.parametrize("smooth", [True, False])
def test_map_keeps_range_and_mean(cells, smooth):
    alpha = random_alphas(1, *cells)[0]
    size = (cells[0] * 9, cells[1] * 13)
    weights = upsample_alpha(alpha, size, smooth=smooth)
    assert weights.shape == size and weights.dtype == np.float32
    assert (
        alpha.min() - 1e-6 <= weights.min()
        and weights.max() <= alpha.max() + 1e-6
    )
    np.testing.assert_allclose(weights.mean(), alpha.mean(), rtol=1e-4)


def test_even_map_stays_even_at_any_size():
    for size in [(256, 256), (100, 37), (3, 5), (1, 1)]:
        np.testing.assert_allclose(
            upsample_alpha(np.full((8, 8), 1 / 64), size), 1 / 64, rtol=1e-5
        )


def test_smooth_peak_is_in_the_middle_of_its_cell():
    alpha = np.zeros((8, 8))
    alpha[2, 5] = 1
    weights = upsample_alpha(alpha, (72, 72))
    assert np.unravel_index(weights.argmax(), weights.shape) == (
        2 * 9 + 4,
        5 * 9 + 4,
    )
    np.testing.assert_allclose(
        weights, upsample_alpha(alpha.T, (72, 72)).T, atol=1e-6
    )


def test_smoothing_has_no_steps():
    alpha = random_alphas(1, 4, 4)[0]
    raw = upsample_alpha(alpha, (128, 128), smooth=False)
    smooth = upsample_alpha(alpha, (128, 128))
    assert abs(np.diff(smooth)).max() < abs(np.diff(raw)).max() / 8


# ------------------------------------------------------------------------------------- the figure


def test_one_panel_a_content_word_in_order_with_its_peak(photograph):
    alphas = random_alphas(4)
    figure = show_attention(
        photograph, make_caption(alphas, ["a", "red", "dog", "runs"])
    )
    panels = word_panels(figure)
    assert [word_of(axes) for axes in panels] == ["red", "dog", "runs"]
    for axes, alpha in zip(panels, alphas[1:], strict=True):
        assert axes.get_title("right") == f"×{alpha.max() * 64:.1f}"
    assert figure.get_suptitle() == "a red dog runs"  # every word is listed
    plt.close(figure)


def test_every_word_is_drawn_if_asked_or_if_few_have_content(photograph):
    words = ["a", "dog", "on", "the"]
    for settings, drawn in (({"every": True}, words), ({}, words)):
        figure = show_attention(
            photograph, make_caption(random_alphas(4), words), **settings
        )
        assert [word_of(axes) for axes in word_panels(figure)] == drawn
        plt.close(figure)
    assert content_words("a dog on the grass".split()) == [1, 4]
    assert content_words([]) == [] and content_words(["the"]) == [0]
    assert all(word == word.lower() for word in FUNCTION_WORDS)


@pytest.mark.parametrize("words", [1, 4, 30])
def test_panels_are_large_on_a_narrow_page(photograph, words):
    """At 390 pixels the figure is some 350 wide: 10-pixel letters, panels of 100 or more."""
    figure = show_attention(photograph, make_caption(random_alphas(words)))
    figure.canvas.draw()
    panels = word_panels(figure)
    assert len(panels) == words
    shown = 350 / figure.get_figwidth()  # pixels an inch
    for axes in panels:
        assert axes.get_position().width * figure.get_figwidth() * shown >= 100
        size = axes._left_title.get_fontsize()
        assert size / 72 * shown >= 10
    plt.close(figure)


def test_the_figure_is_transparent(photograph, tmp_path):
    show_attention(
        photograph, make_caption(random_alphas(2)), to=tmp_path / "seen.png"
    )
    with Image.open(tmp_path / "seen.png") as drawn:
        assert drawn.convert("RGBA").getpixel((2, 2))[3] == 0


def test_half_of_the_weight_in_the_fewest_pixels():
    weights = np.array([[0.1, 0.4], [0.3, 0.2]])
    np.testing.assert_array_equal(
        half_of_weight(weights), [[False, True], [True, False]]
    )
    assert half_of_weight(np.full((9, 7), 1 / 63, np.float32)).all()
    alpha = random_alphas(1)[0]
    mask = half_of_weight(alpha)
    assert alpha[mask].sum() >= 0.5
    assert alpha[mask].min() > alpha[~mask].max()
    assert alpha[mask].sum() - alpha[mask].min() < 0.5


def test_a_line_surrounds_half_of_the_weight_and_none_an_even_map(photograph):
    peaked = np.full((8, 8), 0.2 / 63)
    peaked[3, 5] = 0.8
    even = np.full((8, 8), 1 / 64)
    figure = show_attention(
        photograph, make_caption([peaked, even]), smooth=False
    )
    _, first, second = figure.axes[:3]
    (line, _) = first.collections
    x, y = line.get_paths()[0].vertices.T
    height, width = photograph.shape[:2]
    # The cell's own square, to the pixel.
    assert abs(x.min() - (width * 5 / 8 - 0.5)) <= 1
    assert abs(y.max() - (height * 4 / 8 - 0.5)) <= 1
    assert len(second.collections) == 0
    plt.close(figure)


def test_first_panel_is_the_photograph_itself(photograph):
    figure = show_attention(photograph, make_caption(random_alphas(2)))
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, photograph / 255, atol=1 / 255)
    plt.close(figure)


def test_words_share_one_scale(photograph):
    even, peaked = np.full((8, 8), 1 / 64), np.zeros((8, 8))
    peaked[0, 0] = 1
    figure = show_attention(
        photograph, make_caption([even, peaked]), smooth=False
    )
    photo, even_panel, peaked_panel = (
        axes.images[0].get_array() for axes in figure.axes[:3]
    )
    lit = photo[-1, -1] ** 0.65  # as where a weight is the caption's largest
    dim = peaked_panel[-1, -1]  # where it is 0
    light = np.sqrt(1 / 64)
    np.testing.assert_allclose(
        even_panel[-1, -1], dim + light * (lit - dim), rtol=1e-5
    )
    plt.close(figure)


def test_bright_is_looked_at_and_the_dark_stays_recognisable(photograph):
    light = np.zeros((8, 8))
    light[:, :4] = 1 / 32
    figure = show_attention(photograph, make_caption([light]), smooth=False)
    photo, drawn = (axes.images[0].get_array() for axes in figure.axes[:2])
    half = photo.shape[1] // 2
    assert (drawn[:, :half] >= photo[:, :half] - 1e-6).all()
    dim, seen = drawn[:, half:].mean(2), photo[:, half:].mean(2)
    assert dim.max() < 0.3
    assert np.corrcoef(dim.ravel(), seen.ravel())[0, 1] > 0.99
    assert dim.max() - dim.min() > 0.15 * (seen.max() - seen.min())
    plt.close(figure)


def test_raw_squares_are_drawn_as_squares():
    grey = np.full((64, 64), 200, np.uint8)
    caption = make_caption(random_alphas(1, 4, 4))
    for smooth, few in [(False, True), (True, False)]:
        figure = show_attention(grey, caption, smooth=smooth)
        drawn = figure.axes[1].images[0].get_array()[..., 0]
        assert (len(np.unique(drawn.round(5))) <= 16) == few
        plt.close(figure)


def test_unfinished_and_empty_captions_are_drawn(photograph):
    figure = show_attention(
        photograph, make_caption(random_alphas(2), finished=False)
    )
    assert "unfinished" in figure.get_suptitle()
    empty = show_attention(photograph, make_caption(np.zeros((0, 8, 8))))
    assert word_panels(empty) == [] and "no words" in empty.get_suptitle()
    plt.close(figure)
    plt.close(empty)


def test_words_are_never_read_as_formulas(photograph, tmp_path):
    caption = make_caption(random_alphas(3), ["$5", "^_$", "{"])
    show_attention(photograph, caption, to=tmp_path / "money.png")


@pytest.mark.parametrize("shape", [(10, 3000), (3000, 10), (1, 1), (300, 200)])
def test_any_shape_of_photograph(shape, tmp_path):
    picture = np.zeros(shape, np.uint8)
    show_attention(
        picture, make_caption(random_alphas(2)), to=tmp_path / "thin.png"
    )
    with Image.open(tmp_path / "thin.png") as drawn:
        assert max(drawn.size) < 2500


def test_maps_must_match_words(photograph):
    with pytest.raises(ValueError, match="expected 2 maps"):
        show_attention(
            photograph, make_caption(random_alphas(3), ["two", "words"])
        )


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_file_in_the_format_of_its_ending(photograph, tmp_path, ending):
    target = tmp_path / "new" / f"seen.{ending}"
    show_attention(photograph, make_caption(random_alphas(2)), to=target)
    assert target.stat().st_size > 1000
    assert list(target.parent.iterdir()) == [
        target
    ]  # nothing half-written beside it


@pytest.mark.parametrize("name", ["seen", "seen.txt", "seen."])
def test_no_picture_file(photograph, tmp_path, name):
    with pytest.raises(InputError, match="use a name that ends in .png"):
        show_attention(
            photograph, make_caption(random_alphas(1)), to=tmp_path / name
        )
    assert list(tmp_path.iterdir()) == []


def test_missing_photograph_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.jpg"):
        show_attention(tmp_path / "nowhere.jpg", make_caption(random_alphas(1)))


def test_report_8_164_figures_save_without_a_display(tmp_path):
    code = (
        "import numpy as np; from captionlib.captioner import Caption;"
        "from captionlib.visualize import show_attention; import matplotlib.pyplot as plt;"
        "alphas = np.full((2, 8, 8), 1 / 64);"
        "caption = Caption(['a', 'dog'], 'a dog', -1.0, alphas, True);"
        f"show_attention(np.zeros((9, 9), np.uint8), caption, to={str(tmp_path / 'seen.png')!r});"
        "assert plt.get_fignums() == []"  # nothing is left open behind the caller's back
    )
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    environment["MPLBACKEND"] = (
        "TkAgg"  # a backend that could not open a window here
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    with Image.open(tmp_path / "seen.png") as figure:
        assert figure.width > 300


# ------------------------------------------------------------------ what the toy captioner looks at


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """Thirty unseen scenes, what is where in them, and their captions."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=0, val=0, test=30, seed=0)
    objects = read_json(folder / "objects_scenes.json")
    paths = sorted((folder / "images").iterdir())
    captions = Captioner.from_pretrained("toy").caption_batch(paths)
    return [(objects[p.name], c) for p, c in zip(paths, captions, strict=True)]


def inside(alpha, mask):
    weights = upsample_alpha(alpha, mask.shape, smooth=False)
    return weights[mask].sum() / weights.sum()


@pytest.fixture(scope="module")
def naming(looked):
    """For each naming word: its caption, its place in it, and its object's box."""
    found = []
    for objects, caption in looked:
        for t, word in enumerate(caption.words):
            mask = np.zeros((256, 256), bool)
            for thing in objects:
                if word in thing["words"]:
                    x0, y0, x1, y1 = (int(edge) for edge in thing["box"])
                    mask[y0:y1, x0:x1] = True
            if mask.any():
                found.append((caption, t, mask))
    assert len(found) > 20
    return found


def test_complaint_deeprnn_3_maps_differ_across_words(naming):
    """With one map for every word, all words would have as much weight in a box."""
    own, others = [], []
    for caption, t, mask in naming:
        own.append(inside(caption.alphas[t - 1], mask))
        rest = [i for i in range(len(caption.words)) if i not in (t, t - 1)]
        others.append(np.mean([inside(caption.alphas[i], mask) for i in rest]))
    assert np.mean(own) > 1.5 * np.mean(others)


def test_maps_fall_on_the_named_object_and_most_one_word_early(naming):
    own, before, area = (
        np.mean(values)
        for values in zip(
            *(
                (
                    inside(caption.alphas[t], mask),
                    inside(caption.alphas[t - 1], mask),
                    mask.mean(),
                )
                for caption, t, mask in naming
                if t
            ),
            strict=True,
        )
    )
    assert before > own > 1.5 * area


@pytest.mark.parametrize(
    "panels, columns", [(2, 2), (3, 2), (8, 2), (9, 3)], ids=str
)
def test_a_wide_photographs_panels_fill_the_figure(panels, columns):
    """At most two in a row up to eight; no more height than they need."""
    photograph = np.zeros((100, 150, 3), np.uint8)
    words = [f"word{n}" for n in range(panels - 1)]
    caption = make_caption(random_alphas(panels - 1), words)
    figure = show_attention(photograph, caption)
    grid = figure.axes[0].get_gridspec()
    assert (grid.ncols, grid.nrows) == (columns, -(-panels // columns))
    width, height = figure.get_size_inches()
    pictures = grid.nrows * (100 / 150) * width / columns
    assert pictures < height < pictures + 0.3 * (grid.nrows + 3)
    assert figure.get_facecolor()[3] == 0
    plt.close(figure)


def test_by_default_maps_are_smooth_and_white_stays_white():
    white = np.full((80, 80, 3), 255, np.uint8)
    caption = make_caption(random_alphas(1))

    def drawn(**options):
        figure = show_attention(white, caption, **options)
        pictures = [axes.images[0].get_array() for axes in figure.axes[:2]]
        plt.close(figure)
        return pictures

    plain, lit = drawn()
    assert plain.min() == 1.0
    assert np.array_equal(lit, drawn(smooth=True)[1])
    assert not np.array_equal(lit, drawn(smooth=False)[1])
