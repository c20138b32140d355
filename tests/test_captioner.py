"""The captioner: one reader, bounded batches, and an answer for every image."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from captionlib import captioner as module
from captionlib.beam_search import beam_search
from captionlib.captioner import Captioner
from captionlib.config import DataConfig, DecodingConfig, SearchConfig
from captionlib.data import ImageDataset, image_file, prepare
from captionlib.io.files import InputError
from captionlib.io.images import read_image
from captionlib.model import CaptionModel
from captionlib.toy.scenes import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=0, val=0, test=8, seed=0)
    return sorted((folder / "images").iterdir())


@pytest.fixture(scope="module")
def captioner():
    return Captioner.from_pretrained("toy")


def assert_same(first, second):
    assert first.words == second.words and first.finished == second.finished
    np.testing.assert_allclose(first.log_prob, second.log_prob, rtol=1e-4)
    np.testing.assert_allclose(first.alphas, second.alphas, atol=1e-4)


# ------------------------------------------------------------------------------------ the answer


def test_caption_holds_words_maps_and_probability(captioner, scenes):
    caption = captioner.caption(scenes[0])
    assert caption.finished and caption.words
    assert not {"<start>", "<end>", "<pad>"} & set(caption.words)
    assert caption.text == " ".join(caption.words)
    assert caption.alphas.shape == (len(caption.words), 8, 8)
    assert (
        isinstance(caption.alphas, np.ndarray)
        and caption.alphas.dtype == np.float32
    )
    np.testing.assert_allclose(caption.alphas.sum((1, 2)), 1, atol=1e-4)


def test_log_prob_and_maps_are_those_of_the_teacher_forced_model(
    captioner, scenes
):
    caption, model = captioner.caption(scenes[1]), captioner.model
    words = model.vocabulary.encode(caption.words, len(caption.words))
    pixels = torch.from_numpy(read_image(scenes[1]))[None]
    with torch.inference_mode():
        output = model(
            pixels, torch.tensor([words]), torch.tensor([len(words)])
        )
    log_probs = output.logits.data.log_softmax(1)
    # The search never considers <start> and <pad>; the model gives them next to nothing.
    total = log_probs.gather(1, output.targets.data[:, None]).sum().item()
    np.testing.assert_allclose(caption.log_prob, total, rtol=1e-3)
    maps = output.alphas[0, : len(caption.words)].reshape(caption.alphas.shape)
    np.testing.assert_allclose(caption.alphas, maps, atol=1e-4)


def test_many_at_once_are_as_one_at_a_time(captioner, scenes):
    alone = [captioner.caption(path) for path in scenes]
    for batch_size in (1, 3, 100):
        together = captioner.caption_batch(scenes, batch_size=batch_size)
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other)
    assert captioner.caption_batch([]) == []


def test_report_18_64_142_157_191_196_a_caption_even_if_no_beam_ends(scenes):
    model = CaptionModel.load("toy")
    with torch.no_grad():
        model.decoder.fc.bias[model.vocabulary.end] = -1e4
    caption = Captioner(model, SearchConfig(beam_size=3, max_words=7)).caption(
        scenes[0]
    )
    assert not caption.finished
    assert len(caption.words) == 7 and caption.alphas.shape == (7, 8, 8)


# ------------------------------------------------------------------------------------ the reading


def test_report_101_110_157_training_and_inference_read_alike(
    captioner, scenes, tmp_path
):
    json_path = write_scenes(tmp_path / "few", train=5, val=0, test=0, seed=0)
    images = tmp_path / "few" / "images"
    prepare(
        json_path,
        images,
        tmp_path / "data",
        DataConfig(min_word_freq=1),
    )
    stored = ImageDataset(image_file(tmp_path / "data", "TRAIN"))
    paths = sorted(images.iterdir())
    for path, pixels in zip(paths, stored, strict=False):
        np.testing.assert_array_equal(read_image(path), pixels.numpy())
    encoded = captioner.model.encode(torch.stack([stored[i] for i in range(5)]))
    found = beam_search(
        captioner.model.decoder,
        encoded,
        captioner.model.vocabulary,
        captioner.search,
    )
    for path, best in zip(paths, found, strict=True):
        assert captioner.caption(
            path
        ).words == captioner.model.vocabulary.decode(best.word_ids)


def test_report_101_110_157_pictures_scaled_twice_lose_their_captions(
    captioner, scenes
):
    model = captioner.model
    pixels = torch.stack(
        [torch.from_numpy(read_image(path)) for path in scenes]
    )
    twice = (
        pixels.float() / 255 / 255 - model.encoder.mean
    ) / model.encoder.std
    with torch.inference_mode():
        found = beam_search(
            model.decoder,
            model.encoder(twice),
            model.vocabulary,
            captioner.search,
        )
    spoiled = {tuple(best.word_ids) for best in found}
    right = {caption.text for caption in captioner.caption_batch(scenes)}
    assert (
        len(spoiled) <= 2 and len(right) >= 6
    )  # what is guarded against, and that it is
    with pytest.raises(TypeError, match="uint8"):
        model.encoder.normalise(pixels.float() / 255)


def test_one_picture_in_many_forms_has_one_caption(captioner, scenes):
    picture = Image.open(scenes[2]).convert("RGB")
    expected = captioner.caption(scenes[2])
    array = np.asarray(picture)
    for form in (
        picture,
        picture.convert("RGBA"),
        array,
        array / 255,
        array.transpose(2, 0, 1),
    ):
        assert_same(captioner.caption(form), expected)
    assert_same(captioner.caption(str(scenes[2])), expected)


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 900), (900, 2), (256, 256, 1), (31, 17, 4)]
)
def test_any_size_gets_a_caption(captioner, shape):
    assert captioner.caption(np.zeros(shape, np.uint8)).words is not None


def test_what_is_no_picture_is_named(captioner, scenes, tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    cut = tmp_path / "cut.png"
    cut.write_bytes(scenes[0].read_bytes()[:3000])
    for bad in (tmp_path / "text.jpg", cut, tmp_path / "gone.png", tmp_path):
        with pytest.raises(InputError) as error:
            captioner.caption(bad)
        assert str(bad) in str(error.value) and "\n" not in str(error.value)


# ------------------------------------------------------------------------------------- the memory


def test_report_57_98_bounded_batches_and_no_gradients(
    captioner, scenes, monkeypatch
):
    sizes, read = [], []
    encode, read_one = captioner.model.encode, module.read_image

    def record_encode(pixels):
        sizes.append(len(pixels))
        assert torch.is_inference_mode_enabled()
        assert len(read) == sum(sizes)  # no image is read before its batch
        return encode(pixels)

    def record_read(image):
        read.append(image)
        return read_one(image)

    monkeypatch.setattr(captioner.model, "encode", record_encode)
    monkeypatch.setattr(module, "read_image", record_read)
    captions = captioner.caption_batch(iter(scenes), beam_size=1, batch_size=3)
    assert sizes == [3, 3, 2] and len(captions) == 8
    with pytest.raises(ValueError, match="batch_size"):
        captioner.caption_batch(scenes, batch_size=0)


# ------------------------------------------------------------------------------------- the settings


def test_settings_come_with_the_model_and_beam_size_changes_one(
    scenes, monkeypatch
):
    model = CaptionModel.load("toy")
    model.search = {"beam_size": 2, "max_words": 9, "length_normalisation": 0.5}
    captioner, seen = Captioner(model), []

    write = module.write_captions

    def record(decoder, encoder_out, vocabulary, config):
        seen.append(config)
        return write(decoder, encoder_out, vocabulary, config)

    monkeypatch.setattr(module, "write_captions", record)
    captioner.caption(scenes[0])
    captioner.caption(scenes[0], beam_size=4)
    captioner.caption(scenes[0])
    assert [config.beam_size for config in seen] == [2, 4, 2]
    assert {
        (config.max_words, config.length_normalisation) for config in seen
    } == {(9, 0.5)}
    with pytest.raises(ValueError, match="beam_size"):
        captioner.caption(scenes[0], beam_size=0)


def test_settings_of_old_models_still_do_and_new_ones_reach_the_search(scenes):
    model = CaptionModel.load("toy")
    vocabulary = model.vocabulary
    with torch.no_grad():
        model.decoder.fc.bias[vocabulary.unk] = 30.0
    model.search = {"beam_size": 3, "max_words": 30}
    assert Captioner(model).search == DecodingConfig(beam_size=3, max_words=30)
    assert "<unk>" in Captioner(model).caption(scenes[0]).words
    model.search["forbid_unk"] = True
    assert "<unk>" not in Captioner(model).caption(scenes[0]).words


@pytest.mark.parametrize(
    "search", [{"beams": 3}, {"beam_size": 0}, {"beam_size": "wide"}]
)
def test_settings_that_are_no_use_are_said(search, tmp_path):
    model = CaptionModel.load("toy")
    model.search = search
    model.save(tmp_path / "model")
    with pytest.raises(InputError, match="model.*search settings"):
        Captioner.from_pretrained(tmp_path / "model")


def test_a_model_in_training_mode_is_brought_back(scenes):
    model = CaptionModel.load("toy").train()
    captioner = Captioner(model)
    assert not model.training
    assert_same(captioner.caption(scenes[0]), captioner.caption(scenes[0]))


# -------------------------------------------------------------------------------------- the folder


def test_without_a_folder_the_shipped_captioner(
    captioner, scenes, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "flickr8k")
    with pytest.raises(InputError, match="train one and name its folder"):
        Captioner.from_pretrained()
    captioner.model.save(tmp_path / "flickr8k")
    assert_same(
        Captioner.from_pretrained().caption(scenes[0]),
        captioner.caption(scenes[0]),
    )


def test_a_training_folder_means_its_best(captioner, scenes, tmp_path):
    captioner.model.save(tmp_path / "run" / "best")
    for folder in (tmp_path / "run", str(tmp_path / "run" / "best")):
        assert_same(
            Captioner.from_pretrained(folder).caption(scenes[0]),
            captioner.caption(scenes[0]),
        )


def test_a_folder_that_holds_no_captioner_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match=folder.name):
            Captioner.from_pretrained(folder)
    damaged = tmp_path / "damaged"
    CaptionModel.load("toy").save(damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged") as error:
        Captioner.from_pretrained(damaged)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------- several threads


@pytest.fixture(scope="module")
def mixed(scenes, tmp_path_factory):
    """Images in several formats, and damaged ones, of which Pillow warns."""
    folder = tmp_path_factory.mktemp("mixed")
    for number, path in enumerate(scenes[:4]):
        suffix = ("png", "tiff", "webp", "gif")[number]
        Image.open(path).convert("RGB").save(folder / f"{number}.{suffix}")
    for path in list(folder.glob("[01].*")):
        half = path.read_bytes()[: path.stat().st_size // 2]
        (folder / f"half{path.suffix}").write_bytes(half)
    (folder / "text.jpg").write_text("not an image\n")
    exif = b"Exif\0\0II*\0\xff\xff\xff\xff"
    Image.open(scenes[0]).convert("RGB").save(folder / "exif.jpg", exif=exif)
    return sorted(folder.iterdir())


def answer(captioner, path):
    try:
        return captioner.caption(path)
    except InputError as error:
        return str(error)


def test_threads_leave_warnings_and_torch_alone(captioner, mixed):
    alone = [answer(captioner, path) for path in mixed]
    assert sum(isinstance(a, str) for a in alone) == 3
    state, done = torch.get_rng_state(), threading.Event()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters, before = warnings.filters, list(warnings.filters)
        watched = []

        def watch():
            while not done.is_set():
                watched.append(warnings.filters is filters == before)

        def work(number):
            warnings.warn(f"of thread {number}", stacklevel=2)
            assert (
                torch.is_grad_enabled()
                and not torch.is_inference_mode_enabled()
            )
            turned = mixed[number:] + mixed[:number]
            found = {path: answer(captioner, path) for path in turned}
            warnings.warn(f"of thread {number}", stacklevel=2)
            return [found[path] for path in mixed]

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(work, range(8)))
        finally:
            done.set()
            watcher.join()
        assert watched and all(watched)
        assert warnings.filters is filters and filters == before
    own = [w for w in caught if str(w.message).startswith("of thread")]
    assert len(own) == 16
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    for found in answers:
        for one, other in zip(found, alone, strict=True):
            if isinstance(other, str):
                assert one == other
            else:
                assert_same(one, other)


def test_threads_that_read_tiffs_lose_nobodys_words(tmp_path, capfd):
    noise = Image.effect_noise((2_000, 1_000), 50)
    noise.save(tmp_path / "a.tiff", compression="tiff_deflate")
    thread = threading.Thread(target=read_image, args=[tmp_path / "a.tiff"])
    thread.start()
    written = 0
    while thread.is_alive():
        os.write(2, b"a line\n")
        written += 1
    thread.join()
    assert capfd.readouterr().err == "a line\n" * written
