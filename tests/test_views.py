"""The views hold what was computed, and all that a page needs to show it."""

import base64
import copy
import io
import json
import re
from datetime import datetime
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from javascript import run
from PIL import Image
from test_beam_search import make_decoder, make_encodings, make_vocabulary

from captionlib.beam_search import beam_search
from captionlib.book.beam_trace import beam_view, trace_search
from captionlib.book.bench_views import epochs_view, query_view
from captionlib.book.grounding_views import deletion_view, lag_view
from captionlib.book.live import LiveCaptioner, LiveChoice
from captionlib.book.views import ORDERS, attention_view, bleu_view, packed_view
from captionlib.captioner import Caption, Captioner
from captionlib.config import DecodingConfig, SearchConfig
from captionlib.grounding import boxes_to_cells
from captionlib.io.files import ASSETS
from captionlib.io.images import open_rgb
from captionlib.metrics import bleu, bleu_statistics
from captionlib.toy.scenes import draw_scene, scene_with_captions
from tools.book import Assets

PHOTOGRAPH = ASSETS / "photograph.jpg"
WORDS = "a dog runs on the green grass".split()
HOSTILE = ["</script><script>alert(1)</script>", 'a"b', "it's", "<img", "&amp;"]
REFERENCES = [
    "a brown dog is running on the grass".split(),
    "a dog runs across a green field".split(),
    "the dog is playing on the green grass outside".split(),
]


def random_caption(words=WORDS, h=5, w=7, seed=0) -> Caption:
    maps = np.random.default_rng(seed).dirichlet(
        np.full(h * w, 0.3), len(words)
    )
    alphas = maps.reshape(len(words), h, w).astype(np.float32)
    return Caption(list(words), " ".join(words), -1.0, alphas, True)


def search(config=SearchConfig(beam_size=3), seed=0, end=0.0):  # noqa: B008 (frozen)
    vocabulary = make_vocabulary(6)
    decoder = make_decoder(vocabulary, seed, end)
    encodings = make_encodings(1, seed)
    best = beam_search(decoder, encodings, vocabulary, config)[0]
    return (
        trace_search(decoder, encodings[0], vocabulary, config),
        best,
        vocabulary,
    )


BOX = [40, 60, 120, 200]


def lag(words=WORDS, step=2):
    maps = random_caption(words, 4, 4).alphas.reshape(len(words), 16)
    mean = {0: 0.2, -1: 0.3, 1: 0.1}
    return lag_view(PHOTOGRAPH, words, maps, step, [BOX], mean)


def deletion(words=("w", "x", "y"), step=1):
    vocabulary = make_vocabulary(6)
    decoder = make_decoder(vocabulary, 0, 0.0)
    grids = torch.cat([make_encodings(3, 0)] * 3, dim=1)[:, :9]
    model = SimpleNamespace(decoder=decoder, vocabulary=vocabulary)
    return deletion_view(PHOTOGRAPH, model, grids, 1, words, step, [BOX])


def query(names=("sky", "sky too", "dog", "sand")):
    grid = [[0.0, 0.1], [0.1, 0.2], [2.0, 0.3], [0.2, 1.8]]
    return query_view(names, grid, [1.5, -0.5], ("dog", "beach"))


def epochs(of="dog"):
    maps = random_caption(WORDS, 4, 4).alphas.reshape(len(WORDS), 16)
    return epochs_view(PHOTOGRAPH, maps, [BOX], of)


VIEWS = {
    "query": query,
    "epochs": epochs,
    "hostile query": lambda: query(HOSTILE[:4]),
    "hostile epochs": lambda: epochs(HOSTILE[0]),
    "deletion": deletion,
    "lag": lag,
    "hostile deletion": lambda: deletion(HOSTILE, 0),
    "hostile lag": lambda: lag(HOSTILE, 0),
    "attention": lambda: attention_view(random_caption(), PHOTOGRAPH),
    "beam": lambda: beam_view(search()[0]),
    "bleu": lambda: bleu_view(REFERENCES, WORDS),
    "packed": lambda: packed_view(REFERENCES),
    "hostile attention": lambda: attention_view(
        random_caption(HOSTILE), PHOTOGRAPH
    ),
    "hostile bleu": lambda: bleu_view([HOSTILE, WORDS], HOSTILE),
    "hostile packed": lambda: packed_view([HOSTILE, WORDS]),
}


def text(page: str) -> str:
    """A page's own words: no style, script or tag."""
    page = re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_self_contained_and_always_the_same(name):
    view = VIEWS[name]()
    page = view._repr_html_()
    assert page == VIEWS[name]()._repr_html_()
    loaded = Assets()
    loaded.feed(page)
    assert loaded.found == [] and not re.search(
        r"https?://|@import|\bid=|fetch\(", page
    )
    assert all(
        link.startswith("data:")
        for link in re.findall(r'(?:src|href)="([^"]*)', page)
    )
    assert len(page) < 120_000
    assert (
        len(re.findall("<script", page))
        == 2
        == len(re.findall("</script>", page))
    )
    stored = re.search(
        r'<script type="application/json">(.*?)</script>', page, re.DOTALL
    )
    assert json.loads(stored[1]) == view.data
    assert repr(view) == view.summary and "hidden" in page


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_says_in_words_what_its_pictures_show(name):
    page = VIEWS[name]()._repr_html_()
    assert re.search(r'role="status">[^<]{40,}', page)
    assert all(
        len(alt) > 20 for alt in re.findall(r'<img [^>]*alt="([^"]*)"', page)
    )
    assert all("aria-label" in svg for svg in re.findall(r"<svg[^>]*>", page))


# -------------------------------------------------------------------------------------- attention


def test_the_maps_on_the_page_are_the_captions():
    caption = random_caption()
    view = attention_view(caption, PHOTOGRAPH)
    shares = np.array(view.data["maps"]).reshape(caption.alphas.shape) / 100
    np.testing.assert_allclose(shares, caption.alphas * 35, atol=0.0051)
    assert view.data["words"] == WORDS and view.data["grid"] == [5, 7]
    assert view.data["peaks"] == [
        f"{alpha.max() * 35:.1f}" for alpha in caption.alphas
    ]


def test_the_still_pictures_are_dark_where_the_weight_is_small():
    caption = random_caption()
    page = attention_view(caption, PHOTOGRAPH)._repr_html_()
    veils = re.findall(r'src="data:image/png;base64,([^"]+)', page)
    assert len(veils) == len(WORDS)
    for veil, alpha in zip(veils, caption.alphas, strict=True):
        dark = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(veil))))[..., 3]
            / 208
        )
        np.testing.assert_allclose(
            dark, 1 - np.sqrt(alpha / caption.alphas.max()), atol=1 / 200
        )


def test_the_sentence_names_the_cell_of_the_largest_weight():
    alphas = np.full((1, 3, 4), 0.5 / 11, np.float32)
    alphas[0, 2, 1] = 0.5
    view = attention_view(
        Caption(["dog"], "dog", -1.0, alphas, True), PHOTOGRAPH
    )
    assert (
        "6.0 times an even share, in row 3 of 3 and column 2 of 4."
        in view.summary
    )


def test_the_photograph_is_left_as_it_is():
    image = open_rgb(PHOTOGRAPH)
    before = copy.deepcopy(image)
    attention_view(random_caption(), image)
    assert image == before


@pytest.mark.parametrize(("words", "maps"), [(["a", "dog"], 1), ([], 0)])
def test_a_caption_needs_a_map_a_word(words, maps):
    caption = Caption(
        words,
        " ".join(words),
        -1.0,
        np.ones((maps, 2, 2), np.float32) / 4,
        True,
    )
    with pytest.raises(ValueError, match="expected"):
        attention_view(caption, PHOTOGRAPH)


# ------------------------------------------------------------------------------------ beam search


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beam_size", [1, 2, 4])
def test_the_trace_is_of_the_search(seed, beam_size):
    config = SearchConfig(beam_size=beam_size)
    trace, best, vocabulary = search(config, seed)
    step, place = trace.winners()[-1]
    winner = trace.steps[step][place]
    assert (
        winner.words == [*vocabulary.decode(best.word_ids), "<end>"]
        and best.finished
    )
    assert winner.log_prob == pytest.approx(best.log_prob, abs=1e-9)
    assert len(trace.winners()) == len(winner.words)


@pytest.mark.parametrize("seed", range(6))
def test_every_candidate_continues_a_live_one_and_the_best_are_kept(seed):
    trace, _, _ = search(SearchConfig(beam_size=3), seed)
    for t, step in enumerate(trace.steps):
        placed = [each for each in step if each.fate != "dropped"]
        dropped = [each for each in step if each.fate == "dropped"]
        assert len(placed) <= 3 and len(dropped) <= 2
        assert step == sorted(step, key=lambda each: -each.log_prob)
        for each in step:
            assert len(each.words) == t + 1
            if t:
                parent = trace.steps[t - 1][each.parent]
                assert parent.fate == "kept" and parent.words == each.words[:-1]
                assert each.log_prob <= parent.log_prob
            assert (each.fate == "finished") == (
                each.words[-1] == "<end>" and each in placed
            )
    assert not any(each.fate == "kept" for each in trace.steps[-1])


def test_what_leads_to_a_finished_caption_lasts_and_a_dead_end_does_not():
    trace, _, _ = search(SearchConfig(beam_size=3))
    until, end = trace.last_steps(), len(trace.steps) - 1
    assert all(until[t][i] == end for t, i in trace.winners())
    parents = {(t - 1, each.parent) for t, s in enumerate(trace.steps) for each in s
               if each.fate != "dropped"}  # fmt: skip
    dead = [
        (t, i)
        for t, step in enumerate(trace.steps)
        for i, each in enumerate(step)
        if each.fate == "kept" and (t, i) not in parents
    ]
    assert dead and all(until[t][i] == t for t, i in dead)


def test_a_search_that_ends_at_its_longest_length_is_traced():
    trace, best, vocabulary = search(
        SearchConfig(beam_size=2, max_words=3), end=-1e9
    )
    step, place = trace.winners()[-1]
    assert not best.finished and step == 2
    assert trace.steps[step][place].words == vocabulary.decode(best.word_ids)
    assert "finished" not in {each.fate for s in trace.steps for each in s}
    assert "<end>" not in beam_view(trace).summary


@pytest.mark.parametrize(
    "settings",
    [{"groups": 2, "beam_size": 4}, {"sample": True, "beam_size": 1}],
)
def test_only_a_plain_search_is_traced(settings):
    with pytest.raises(ValueError, match="without groups or sampling"):
        search(DecodingConfig(**settings))


def test_the_tree_has_a_box_for_every_candidate():
    trace, _, _ = search()
    page = beam_view(trace)._repr_html_()
    boxes = re.findall(r'<g class="(\w+)[^"]*" data-step="(\d+)"', page)
    assert boxes == [
        (each.fate, str(t)) for t, s in enumerate(trace.steps) for each in s
    ]
    assert len(re.findall("data-won", page)) == len(trace.winners())
    listed = re.findall(r'<li class="(\w+)">', page)
    assert listed == [each.fate for step in trace.steps for each in step]


# ------------------------------------------------------------------------------------------- BLEU


@pytest.mark.parametrize("seed", range(20))
def test_the_calculator_starts_with_the_package_s_numbers(seed):
    rng = np.random.default_rng(seed)
    *people, words = [
        rng.choice(WORDS, rng.integers(0, 12)).tolist() for _ in range(4)
    ]
    page = bleu_view(people, words)._repr_html_()
    counts = bleu_statistics([people], [words])[0].astype(int).tolist()
    found = re.findall(r"(\w+): <b>(\d+) of (\d+)</b> found", page)
    assert found == [
        (ORDERS[n], str(counts[n]), str(counts[n + 4])) for n in range(4)
    ]
    for n, (name, chips) in enumerate(
        re.findall(
            r"<li><span>(\w+): .*?<ul class=\"clv-chips\">(.*?)</ul>", page
        )
    ):
        assert name == ORDERS[n]
        assert (
            chips.count('class="found"') == counts[n]
            and chips.count("<li") == counts[n + 4]
        )
    shown = [float(value) for value in re.findall(r"BLEU-\d <b>([\d.]+)", page)]
    np.testing.assert_allclose(
        shown, list(bleu([people], [words]).values()), atol=0.051
    )


def test_a_word_said_too_often_is_clipped_and_not_missing():
    page = bleu_view(REFERENCES, ["the"] * 7)._repr_html_()
    assert len(re.findall('class="found">the', page)) == 2
    assert len(re.findall('class="clipped">the<', page)) == 5
    assert "2 of 7" in text(page)


def test_a_caption_is_a_list_of_words():
    with pytest.raises(ValueError, match="list of words"):
        bleu_view(REFERENCES, "a dog")


# --------------------------------------------------------------------------------- packed sequences


def test_the_batch_is_sorted_and_packed():
    captions = [
        "a fish".split(),
        "a red car on the street".split(),
        "two cats".split(),
    ]
    view = packed_view(captions)
    assert view.data["order"] == [
        1,
        0,
        2,
    ]  # of two equally long, the first stays first
    assert view.data["sizes"] == [3, 3, 1, 1, 1, 1]
    page = view._repr_html_()
    packed = re.findall(
        r"<li>(\w+)</li>", page.split('clv-packed">')[1].split("</ol>")[0]
    )
    assert packed == "a a two red fish cats car on the street".split()
    assert len(re.findall('class="pad"', page)) == 8
    assert "8 of 18 cells (44%)" in text(page)
    assert len(view.data["says"]) == len(view.data["names"]) == 2 + 6 + 1


def test_a_batch_without_padding_saves_nothing():
    view = packed_view([["a", "dog"], ["two", "cats"]])
    assert view.data["sizes"] == [2, 2] and "0 of 4 cells" in view.summary


@pytest.mark.parametrize("captions", [[], [["a"], []]])
def test_a_batch_needs_words(captions):
    with pytest.raises(ValueError, match="at least one word"):
        packed_view(captions)


# -------------------------------------------------------------------------------------- grounding


def test_the_weights_in_the_box_are_said_and_drawn():
    view = lag()
    maps = random_caption(WORDS, 4, 4).alphas.reshape(len(WORDS), 16)
    shares, _ = boxes_to_cells([BOX], side=4)
    inside = maps @ shares.numpy()
    for said, weight in zip(view.data["says"], inside, strict=True):
        assert f": {weight:.0%} of its weight is in the box" in said
    assert "1 word before “runs”" in view.data["says"][1]
    assert "the word itself" in view.data["says"][2]
    assert "2 words after “runs”" in view.data["says"][4]
    assert view.data["says"][2] in view.summary
    page = view._repr_html_()
    heights = [
        float(y)
        for y in re.findall(r'<circle data-word="\d+".*?cy="([\d.]+)"', page)
    ]
    assert np.argsort(heights).tolist() == np.argsort(-inside).tolist()
    outline = '<rect x="40" y="60" width="80" height="140"/>'
    assert page.count(outline) == len(WORDS) + 1


def test_a_word_loses_what_erasing_costs():
    view = deletion()
    assert [f"{n} of 9 cells" for n in range(10)] == view.data["names"]
    names = ("most attended first", "the box first", "in a random order")
    for name, order in zip(names, view.data["orders"], strict=True):
        assert sorted(order["cells"]) == list(range(9))
        assert len(order["says"]) == 10
        assert (
            f"0 of 9 cells erased, {name}: “x” has lost 0.00"
            in order["says"][0]
        )
    ends = {order["says"][9].split(": ")[1] for order in view.data["orders"]}
    assert len(ends) == 1  # with everything gone the order does not matter
    starts = re.findall(
        r'<polyline class="clv-order\d" points="(\S+)', view._repr_html_()
    )
    assert starts == ["44.0,162.0"] * 3  # nothing lost, at the bottom
    shares, _ = boxes_to_cells([BOX], side=3)
    first = view.data["orders"][1]["cells"][: int((shares > 0).sum())]
    assert (shares[first] > 0).all()


# ------------------------------------------------------------------------------------------- live


def test_a_choice_makes_a_view_when_it_is_chosen():
    made = []

    def view(word):
        made.append(word)
        return bleu_view([["a", "dog"]], ["a", word])

    choice = LiveChoice(
        "Word", {word: partial(view, word) for word in ("dog", "cat")}
    )
    assert made == ["dog"]
    bundle = choice._repr_mimebundle_()
    assert bundle["text/html"] == choice.still._repr_html_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    words, shown = choice.widget().children
    assert shown.outputs[0]["data"]["text/html"] == choice.still._repr_html_()
    words.value = "cat"
    assert made == ["dog", "cat"]


@pytest.fixture(scope="module")
def live():
    return LiveCaptioner(
        Captioner.from_pretrained("toy"),
        draw_scene(scene_with_captions("val", 0)[0]),
    )


def test_without_a_kernel_the_first_caption_is_shown(live):
    bundle = live._repr_mimebundle_()
    caption = live.captioner.caption(live.image)
    assert live.still.data["words"] == caption.words
    assert bundle["text/html"] == live.still._repr_html_()
    assert bundle["text/plain"] == live.still.summary
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_the_sliders_change_the_caption(live):
    by_beam = {k: live.view(beam_size=k).data["words"] for k in (1, 5)}
    for k, words in by_beam.items():
        assert words == live.captioner.caption(live.image, beam_size=k).words
    draws = [
        live.view(temperature=2.0, seed=seed).data["words"]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_a_draw_leaves_torch_s_own_random_numbers_alone(live):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    live.view(temperature=1.0)
    assert torch.equal(torch.rand(1), expected)


def test_the_widget_works_on_what_is_given(live):
    mine = LiveCaptioner(live.captioner, live.image)
    way, beam, random, upload, shown = mine.widget().children
    heat, again = random.children
    assert shown.outputs[0]["data"]["text/html"] == mine.still._repr_html_()
    assert heat.disabled and not beam.disabled
    way.value = "random words"
    assert beam.disabled and not heat.disabled and not again.disabled
    file = {
        "name": "dog.jpg",
        "type": "",
        "size": 1,
        "last_modified": datetime(2015, 2, 10),
    }
    upload.value = [file | {"content": PHOTOGRAPH.read_bytes()}]
    assert mine.image == open_rgb(PHOTOGRAPH)
    upload.value = [
        file | {"content": b"no picture"}
    ]  # one line is printed, the old one stays
    assert mine.image == open_rgb(PHOTOGRAPH)


def test_the_benchs_step_goes_down_the_gradient(request):
    """The script's gradient is autograd's."""
    code = (ASSETS / "views" / "query.js").read_text().split("startAll(")[0]
    code += "return data.map(([grid, query]) => gradient(grid, query));"
    torch.manual_seed(0)
    cases = [(torch.randn(p, 2), torch.randn(2)) for p in (2, 4, 7)]
    found = run(code, [[g.tolist(), q.tolist()] for g, q in cases], request)
    for (grid, query), slope in zip(cases, found, strict=True):
        query.requires_grad_()
        context = (grid @ query).softmax(dim=0) @ grid
        loss = -context.log_softmax(dim=0)[0]
        (expected,) = torch.autograd.grad(loss, query)
        torch.testing.assert_close(
            torch.tensor(slope), expected, atol=1e-5, rtol=1e-4
        )
