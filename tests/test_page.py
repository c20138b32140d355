"""The captioner in the browser computes what the captioner in Python does."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from javascript import PAGE, START, packed, run
from PIL import Image

from captionlib.beam_search import beam_search
from captionlib.book.beam_trace import trace_search
from captionlib.captioner import SHIPPED, Captioner
from captionlib.config import DecodingConfig, ModelConfig, SearchConfig
from captionlib.data import Vocabulary
from captionlib.decoding import sample
from captionlib.encoder import Encoder
from captionlib.io.files import ASSETS, InputError
from captionlib.io.images import read_image, to_pixels
from captionlib.model import CaptionEnsemble, CaptionModel
from captionlib.page import NUMBERS, pack, round_weights
from captionlib.page.pack import fold_norms

GALLERY = sorted((ASSETS.parent.parent / "book" / "gallery").glob("*.jpg"))
WORDS = ["<pad>", *"a dog cat runs on grass".split(), "<unk>", "<start>"]


@pytest.fixture(scope="module")
def toy():
    return CaptionModel.load("toy")


@pytest.fixture(scope="module")
def photographs():
    return np.stack([read_image(path) for path in GALLERY])


def flat(pixels: np.ndarray) -> bytes:
    """(3, 256, 256) uint8, channels last as in the page."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)).tobytes()


def small_model(**settings) -> CaptionModel:
    """A trained encoder and an untrained decoder."""
    torch.manual_seed(0)
    config = ModelConfig(
        backbone="tf_efficientnet_lite0",
        attention_dim=11,
        embed_dim=9,
        decoder_dim=10,
        **settings,
    )
    words = {word: i for i, word in enumerate([*WORDS, "<end>"])}
    return CaptionModel(config, Vocabulary(words)).eval()


# ------------------------------------------------------------------ source and binary


def compiler_of(code: bytes) -> str:
    """The version of clang that a module names."""
    return re.search(rb"processed-by.*?clang..?([\d.]+)", code, re.S)[
        1
    ].decode()


def test_the_committed_engine_is_what_its_source_gives(tmp_path):
    clang, committed = shutil.which("clang"), PAGE / "engine.wasm"
    if clang is None or shutil.which("wasm-ld") is None:
        pytest.skip("needs clang and lld, to compile the engine")
    made = tmp_path / "engine.wasm"
    command = re.search(
        r"^\$\(ENGINE\)\.wasm:.*?\n\tclang (.*?)-o",
        (PAGE.parent.parent / "Makefile").read_text(),
        re.S | re.M,
    )[1]
    options = command.replace("\\\n", " ").split()
    subprocess.run(
        [clang, *options, "-Werror", "-o", made, PAGE / "engine.c"], check=True
    )
    ours, theirs = committed.read_bytes(), made.read_bytes()
    if compiler_of(ours) != compiler_of(theirs):
        pytest.skip(f"engine.wasm was made by clang {compiler_of(ours)}")
    assert ours == theirs, "engine.c changed: run `make wasm`"


# ------------------------------------------------------------------------- pictures


def shrink(image: Image.Image, request) -> np.ndarray:
    """A picture as the page reads it, (256, 256, 3)."""
    data = {"width": image.width, "height": image.height}
    data["rgba"] = np.asarray(image.convert("RGBA")).tobytes()
    code = """
    const rgba = fromBase64(data.rgba), line = 4 * data.width;
    const rows = (top, count) => rgba.subarray(top * line, (top + count) * line);
    return [...shrink(data.width, data.height, rows)];
    """
    return np.array(run(code, data, request)).reshape(256, 256, 3)


@pytest.mark.parametrize(
    "size", [(640, 427), (500, 500), (1, 1), (256, 700), (3000, 20), (31, 9)]
)
def test_a_picture_shrinks_to_pillows_pixels(size, request):
    rng = np.random.default_rng(sum(size))
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    ours, theirs = shrink(image, request), to_pixels(image).transpose(1, 2, 0)
    assert (ours == theirs).all()


def test_a_tall_photograph_shrinks_to_nearly_the_same(request):
    """Pillow 13 has other intermediate results, which it rounds."""
    with Image.open(next(p for p in GALLERY if p.stem == "two-dogs")) as image:
        ours = shrink(image, request)
        theirs = to_pixels(image).transpose(1, 2, 0).astype(int)
    assert image.height > 1.4 * image.width
    assert abs(ours - theirs).max() <= 3 and (ours != theirs).mean() < 0.25


def test_a_disc_is_greyed_out(request):
    code = """
    const pixels = new Uint8Array(256 * 256 * 3).fill(7);
    return [...greyOut(pixels, [{ x: 0.5, y: 0.25, radius: 0.125 }], [200, 100])];
    """
    found = np.array(run(code, None, request)).reshape(256, 256, 3)
    y, x = np.mgrid[:256, :256] + 0.5
    # A disc in a picture twice as wide as high is an ellipse in the square.
    inside = ((x - 128) / 32) ** 2 + ((y - 64) / 64) ** 2 < 1
    assert (found == np.where(inside, 128, 7)[..., None]).all()


# -------------------------------------------------------------------------- encoder


def test_folded_normalisations_change_nothing(photographs):
    model, pixels = small_model(), torch.from_numpy(photographs[:2])
    folded = fold_norms(model)
    with torch.inference_mode():
        ours, theirs = folded.encode(pixels), model.encode(pixels)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    norms = [m for m in folded.modules() if hasattr(m, "running_mean")]
    assert all((norm.weight == 1).all() for norm in norms)


def test_rounding_moves_a_weight_by_half_a_step_at_most(toy):
    exact, rounded = fold_norms(toy), round_weights(toy, "int8")
    rows = zip(exact.named_parameters(), rounded.parameters(), strict=True)
    for (name, ours), theirs in rows:
        if not name.endswith("bias") and ours.dim() > 1:
            far = (ours - theirs).abs().flatten(1).amax(1)
            step = ours.abs().flatten(1).amax(1) / 127
            assert (far <= 0.5001 * step).all(), name


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"grid_size": None, "image_size": 96},
        {"grid_size": 3, "image_size": 128, "feature_dim": 20},
        {"grid_size": 5, "image_size": 75},
    ],
)
def test_the_grid_is_the_encoders(settings, numbers, photographs, request):
    model = small_model(**settings)
    data = packed(pack(model, numbers)) | {"pixels": flat(photographs[0])}
    code = f"""{START}
    const grid = engine.encode(fromBase64(data.pixels));
    const {{ values, side, dim }} = writer.decoder.shorten(grid);
    return {{ values: [...values], side, dim }};
    """
    found = run(code, data, request)
    model = round_weights(model, numbers)
    with torch.inference_mode():
        grid = model.encode(torch.from_numpy(photographs[:1]))[0]
    assert (found["side"], found["side"], found["dim"]) == grid.shape
    ours = torch.tensor(found["values"]).view_as(grid)
    torch.testing.assert_close(ours, grid, rtol=1e-3, atol=1e-4)


def test_another_backbone_is_refused():
    config = ModelConfig(backbone="resnet18", grid_size=7)
    words = {word: i for i, word in enumerate([*WORDS, "<end>"])}
    encoder = Encoder("resnet18", grid_size=7, pretrained=False)
    with pytest.raises(InputError, match="resnet18: .* train with one of"):
        pack(CaptionModel(config, Vocabulary(words), encoder))


# ------------------------------------------------------------------- writing captions

SEARCH = f"""{START}
const grids = data.pixels.map((each) => engine.encode(fromBase64(each)));
"""


SETTINGS = [
    SearchConfig(**given)
    for given in (
        {"beam_size": 1},
        {"beam_size": 3, "max_words": 4},
        {"beam_size": 4, "max_words": 1, "length_normalisation": 0.7},
        {"beam_size": 7, "length_normalisation": 1.0, "no_repeat": 1},
        {"beam_size": 5, "no_repeat": 2, "min_words": 9, "forbid_unk": True},
        {"beam_size": 10, "max_words": 12, "min_words": 12},
    )
]


def test_searches_are_the_packages(toy, photographs, request):
    """Captions, log-probabilities, maps and the tree, under any settings."""
    data = packed(pack(toy)) | {"settings": [*map(asdict, SETTINGS)]}
    data["pixels"] = [flat(each) for each in photographs[:2]]
    code = f"""{SEARCH}
    return data.settings.map((settings) => grids.map((grid) => {{
      writer.settings = settings;
      const {{ ids, logProb, alphas, finished, steps }} = writer.search(grid);
      const trace = steps.map((step) => step.map((each) =>
        [each.parent, each.fate, each.score]));
      return {{ ids, logProb, finished, trace, alphas: alphas.map((a) => [...a]) }};
    }}));
    """
    found, model = run(code, data, request), round_weights(toy, "int8")
    with torch.inference_mode():
        grids = model.encode(torch.from_numpy(photographs[:2]))
    rest = model.decoder, grids, toy.vocabulary
    for config, answers in zip(SETTINGS, found, strict=True):
        expected = beam_search(*rest, config)
        for ours, theirs in zip(answers, expected, strict=True):
            assert ours["ids"] == theirs.word_ids
            assert ours["finished"] == theirs.finished
            assert ours["logProb"] == pytest.approx(theirs.log_prob, abs=1e-3)
            alphas = torch.tensor(ours["alphas"]).view_as(theirs.alphas)
            torch.testing.assert_close(
                alphas, theirs.alphas, rtol=1e-3, atol=1e-5
            )
        for ours, grid in zip(answers, grids, strict=True):
            trace = trace_search(model.decoder, grid, toy.vocabulary, config)
            assert same_tree(ours["trace"], trace.steps)


def same_tree(ours: list, theirs: list) -> bool:
    """Equal parents and fates, and scores that are close."""
    if [len(step) for step in ours] != [len(step) for step in theirs]:
        return False
    pairs = zip(sum(ours, []), sum(theirs, []), strict=True)
    return all(
        [parent, fate] == [each.parent, each.fate]
        and abs(score - each.log_prob) < 1e-3
        for (parent, fate, score), each in pairs
    )


def test_an_ensembles_searches_are_the_packages(photographs, request):
    first = small_model(grid_size=4, image_size=96)
    torch.manual_seed(5)
    settings = {"attention_dim": 7, "embed_dim": 6, "feature_dim": 15}
    config = replace(first.config, decoder_dim=12, **settings)
    second = CaptionModel(config, first.vocabulary, first.encoder)
    model = CaptionEnsemble([first, second]).eval()
    data = packed(pack(model)) | {"settings": [*map(asdict, SETTINGS)]}
    data["pixels"] = [flat(each) for each in photographs[:2]]
    code = f"""{SEARCH}
    return data.settings.map((settings) => grids.map((grid) => {{
      writer.settings = settings;
      const {{ ids, logProb, alphas }} = writer.search(grid);
      return {{ ids, logProb, alphas: alphas.map((a) => [...a]) }};
    }}));
    """
    found, model = run(code, data, request), round_weights(model, "int8")
    with torch.inference_mode():
        grids = model.encode(torch.from_numpy(photographs[:2]))
        for config, answers in zip(SETTINGS, found, strict=True):
            rest = model.decoder, grids, model.vocabulary, config
            for ours, theirs in zip(answers, beam_search(*rest), strict=True):
                assert ours["ids"] == theirs.word_ids
                assert ours["logProb"] == pytest.approx(
                    theirs.log_prob, abs=1e-3
                )
                alphas = torch.tensor(ours["alphas"]).view_as(theirs.alphas)
                torch.testing.assert_close(
                    alphas, theirs.alphas, rtol=1e-3, atol=1e-5
                )


def test_an_ensemble_with_two_encoders_is_refused():
    model = CaptionEnsemble([small_model(), small_model()])
    with pytest.raises(InputError, match="2 encoders: .* same encoder"):
        pack(model)


def test_equal_random_numbers_draw_equal_captions(toy, photographs, request):
    temperatures = (0.5, 1.0, 2.0)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand((4, 9), generator=generator).tolist()
    data = packed(pack(toy)) | {"numbers": numbers}
    data |= {"pixels": [flat(photographs[0])], "temperatures": temperatures}
    code = f"""{SEARCH}
    writer.settings.max_words = 8;
    return data.temperatures.map((temperature) => data.numbers.map((row) => {{
      const numbers = [...row];
      const {{ ids, logProb, finished }} = writer.sample(
        grids[0], temperature, () => numbers.shift());
      return [ids, finished, logProb];
    }}));
    """
    found, model = run(code, data, request), round_weights(toy, "int8")
    with torch.inference_mode():
        grid = model.encode(torch.from_numpy(photographs[:1]))
    for temperature, ours in zip(temperatures, found, strict=True):
        config = DecodingConfig(
            beam_size=1, max_words=8, sample=True, temperature=temperature
        )
        rest = toy.vocabulary, config, 4, generator.manual_seed(0)
        (theirs,) = sample(model.decoder, grid, *rest)
        for (ids, finished, log_prob), each in zip(ours, theirs, strict=True):
            assert (ids, finished) == (each.word_ids, each.finished)
            assert log_prob == pytest.approx(each.log_prob, abs=1e-3)


def test_a_captions_score_is_that_of_its_search(toy, photographs, request):
    data = packed(pack(toy)) | {"pixels": [flat(photographs[0])]}
    code = f"""{SEARCH}
    const {{ ids, logProb }} = writer.search(grids[0]);
    const parts = writer.score(grids[0], [...ids, writer.end]);
    return [logProb, parts.reduce((a, b) => a + b)];
    """
    whole, added = run(code, data, request)
    assert added == pytest.approx(whole, abs=1e-4)


# ------------------------------------------------------------------- the shipped one


@pytest.fixture(scope="module")
def captioner():
    """The one that the page runs: of the shipped ensemble, the first."""
    return Captioner(CaptionModel.load(SHIPPED, member=0))


@pytest.mark.parametrize("numbers", NUMBERS)
def test_the_gallerys_captions_are_pythons(
    numbers, captioner, photographs, request
):
    """In float16, as stored, of the packaged model itself; in int8 of the
    model with equally rounded weights."""
    data = packed(pack(captioner.model, numbers))
    data["pixels"] = [flat(each) for each in photographs]
    code = f"""{SEARCH}
    return grids.map((grid) => writer.search(grid))
      .map(({{ words, logProb }}) => [words, logProb]);
    """
    found = run(code, data, request)
    if numbers == "int8":
        model = round_weights(captioner.model, numbers)
        captioner = Captioner(model, captioner.search)
    expected = captioner.caption_batch(GALLERY)
    for (words, log_prob), theirs in zip(found, expected, strict=True):
        assert words == theirs.words
        assert log_prob == pytest.approx(theirs.log_prob, abs=0.05)


def test_packed_weights_are_small_and_described(captioner):
    model, parts = pack(captioner.model)
    assert sum(map(len, parts)) < 11.5e6
    assert len(json.dumps(model)) < 60_000
    assert len(parts) == model["parts"] > 5  # steps of a progress bar
