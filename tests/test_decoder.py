"""Properties of the decoder, and of the model put together."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from benchmarks import from_chapter
from captionlib.config import ModelConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderWithAttention
from captionlib.encoder import Encoder
from captionlib.io.files import InputError
from captionlib.io.word_vectors import read_glove
from captionlib.model import CaptionModel
from tests.original import DecoderWithAttention as OriginalDecoder

A, E, H, V, D, P = (
    13,
    7,
    11,
    31,
    17,
    19,
)  # distinct primes: a mixed-up axis can't pass
SIZES = dict(
    attention_dim=A, embed_dim=E, decoder_dim=H, vocab_size=V, encoder_dim=D
)
PAD, START, END = 0, 29, 30


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return DecoderWithAttention(**SIZES, dropout=0.0)


@pytest.fixture
def naive(decoder):
    naive = from_chapter("04_decoder", "class NaiveDecoder")["NaiveDecoder"](
        **SIZES, dropout=0.0
    )
    naive.load_state_dict(decoder.state_dict())
    return naive


@pytest.fixture
def encoder_out():
    return torch.randn(5, P, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def batch(encoder_out):
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([4, 9, 2, 9, 6])
    return (
        encoder_out,
        torch.randint(1, V, (5, 12), generator=generator),
        lengths,
    )


def packed_loss(output):
    words = nn.functional.cross_entropy(output.logits.data, output.targets.data)
    return words + (1 - output.alphas.sum(dim=1)).square().mean()


def test_shapes_and_packing(decoder, batch):
    output = decoder(*batch)
    tokens = int((batch[2] - 1).sum())
    assert output.logits.data.shape == (tokens, V)
    assert output.targets.data.shape == (tokens,)
    assert output.alphas.shape == (5, 8, P)
    targets, lengths = pad_packed_sequence(output.targets, batch_first=True)
    assert torch.equal(lengths, batch[2] - 1)
    for row, length in enumerate(lengths):
        assert torch.equal(targets[row, :length], batch[1][row, 1 : length + 1])


def test_equals_the_plain_loop_of_the_chapter(decoder, naive, batch):
    logits, _, steps, alphas, order = naive(*batch)
    output = decoder(*batch)
    ours, _ = pad_packed_sequence(output.logits, batch_first=True)
    assert_close(ours[order], logits, atol=1e-5, rtol=0)
    assert_close(output.alphas[order], alphas, atol=1e-5, rtol=0)
    assert steps == sorted((batch[2] - 1).tolist(), reverse=True)


def test_the_plain_loop_repeats_grids(decoder, naive, batch):
    encoder_out, captions, lengths = batch
    captions, lengths = captions.repeat(2, 1), lengths.repeat(2)
    logits, _, _, alphas, order = naive(encoder_out, captions, lengths)
    output = decoder(encoder_out, captions, lengths)
    ours, _ = pad_packed_sequence(output.logits, batch_first=True)
    assert_close(ours[order], logits, atol=1e-5, rtol=0)
    assert_close(output.alphas[order], alphas, atol=1e-5, rtol=0)


def test_equals_the_originals_decoder(decoder, batch):
    encoder_out, captions, lengths = batch
    original = OriginalDecoder(A, E, H, V, D, dropout=0.0)
    original.load_state_dict(decoder.state_dict())
    output = decoder(encoder_out, captions, lengths)
    logits, _ = pad_packed_sequence(output.logits, batch_first=True)
    for row, length in enumerate(lengths.tolist()):
        grid = encoder_out[row : row + 1]
        state = original.start(grid)
        for t in range(length - 1):
            words = captions[row, t : t + 1]
            expected, state, alpha = original.step(words, state, grid)
            assert_close(logits[row, t], expected[0], atol=1e-5, rtol=0)
            assert_close(output.alphas[row, t], alpha[0], atol=1e-5, rtol=0)


def test_gradients_equal_the_plain_loop_of_the_chapter(decoder, naive, batch):
    logits, captions, steps, alphas, _ = naive(*batch)
    predicted = pack_padded_sequence(logits, steps, batch_first=True).data
    targets = pack_padded_sequence(
        captions[:, 1:], steps, batch_first=True
    ).data
    loss = nn.functional.cross_entropy(predicted, targets)
    (loss + (1 - alphas.sum(dim=1)).square().mean()).backward()
    packed_loss(decoder(*batch)).backward()
    for (name, ours), theirs in zip(
        decoder.named_parameters(), naive.parameters(), strict=True
    ):
        assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_a_step_is_the_lstms_with_a_gated_context(decoder, encoder_out):
    state = decoder.begin(encoder_out)
    words = torch.tensor([1, 5, 2, 3, 4])
    logits, alpha, new = decoder.step(words, state)
    context, looked = decoder.attention(state.hidden, state.keys, state.values)
    gate = torch.sigmoid(decoder.f_beta(state.hidden))
    inputs = torch.cat([decoder.embedding(words), gate * context], dim=1)
    i, f, g, o = (
        inputs @ decoder.decode_step.weight_ih.T
        + decoder.decode_step.bias_ih
        + state.hidden @ decoder.decode_step.weight_hh.T
        + decoder.decode_step.bias_hh
    ).chunk(4, dim=1)
    cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
    assert_close(new.cell, cell)
    assert_close(new.hidden, torch.sigmoid(o) * torch.tanh(cell))
    assert_close(logits, decoder.fc(new.hidden))
    assert torch.equal(alpha, looked)


def test_teacher_forcing_is_the_step_in_a_loop(decoder, batch):
    encoder_out, captions, lengths = batch
    output = decoder(encoder_out, captions, lengths)
    logits, _ = pad_packed_sequence(output.logits, batch_first=True)
    for row, length in enumerate(lengths.tolist()):
        state = decoder.begin(encoder_out[row : row + 1])
        for t in range(length - 1):
            told, alpha, state = decoder.step(captions[row, t : t + 1], state)
            assert_close(told[0], logits[row, t])
            assert_close(alpha[0], output.alphas[row, t])
        assert (output.alphas[row, length - 1 :] == 0).all()


def test_padding_changes_nothing(decoder, batch):
    encoder_out, captions, lengths = batch
    longest = int(lengths.max())
    expected = decoder(encoder_out, captions[:, :longest], lengths)
    noise = torch.randint(
        1, V, (5, 40), generator=torch.Generator().manual_seed(3)
    )
    padded = torch.where(
        torch.arange(40) < lengths[:, None],
        nn.functional.pad(captions, (0, 28)),
        noise,
    )
    actual = decoder(encoder_out, padded, lengths)
    assert_close(actual.logits.data, expected.logits.data)
    assert_close(actual.alphas, expected.alphas)


def test_order_of_the_batch_changes_nothing(decoder, batch):
    order = torch.tensor([3, 0, 4, 2, 1])
    expected, actual = (
        decoder(*batch),
        decoder(*(tensor[order] for tensor in batch)),
    )
    logits, _ = pad_packed_sequence(expected.logits, batch_first=True)
    shuffled, _ = pad_packed_sequence(actual.logits, batch_first=True)
    assert_close(shuffled, logits[order])
    assert_close(actual.alphas, expected.alphas[order])


def test_report_75_86_123_161_packed_sequences_by_name(decoder, batch):
    output = decoder(*batch)
    data, batch_sizes, sorted_indices, unsorted_indices = output.logits
    assert data is output.logits.data and data.dim() == 2
    assert batch_sizes.tolist() == [5, 4, 4, 3, 3, 2, 2, 2]
    assert torch.equal(batch_sizes, output.targets.batch_sizes)
    assert torch.equal(sorted_indices[unsorted_indices], torch.arange(5))


def test_an_images_captions_together_are_copies_of_the_image(
    decoder, encoder_out
):
    generator = torch.Generator().manual_seed(4)
    captions = torch.randint(1, V, (15, 9), generator=generator)
    lengths = torch.randint(2, 10, (15,), generator=generator)
    encoder_out.requires_grad_()  # as when the encoder is trained, too
    together = decoder(encoder_out, captions, lengths)
    apart = decoder(encoder_out.repeat_interleave(3, dim=0), captions, lengths)
    assert_close(together.logits.data, apart.logits.data)
    assert_close(together.alphas, apart.alphas)
    wanted = [encoder_out, *decoder.parameters()]
    expected = torch.autograd.grad(packed_loss(apart), wanted)
    actual = torch.autograd.grad(packed_loss(together), wanted)
    assert_close(actual, expected, atol=1e-6, rtol=1e-4)
    again = torch.autograd.grad(
        packed_loss(decoder(encoder_out, captions, lengths)), wanted
    )
    assert all(torch.equal(*pair) for pair in zip(again, actual, strict=True))


def test_frozen_attention_leaves_the_other_gradients_alone(
    decoder, encoder_out
):
    captions = torch.randint(
        1, V, (10, 6), generator=torch.Generator().manual_seed(4)
    )
    lengths = torch.tensor([6, 2, 3, 3, 5, 4, 2, 2, 6, 6])

    def gradients():
        decoder.zero_grad()
        packed_loss(decoder(encoder_out, captions, lengths)).backward()
        return {
            name: weight.grad for name, weight in decoder.named_parameters()
        }

    expected = gradients()
    decoder.attention.requires_grad_(False)
    for name, gradient in gradients().items():
        if name.startswith("attention."):
            assert gradient is None
        else:
            assert_close(gradient, expected[name])


def test_beams_share_an_images_grid(decoder, encoder_out):
    rows = torch.arange(5).repeat_interleave(4)
    shared = decoder.begin(encoder_out).select(rows)
    copied = decoder.begin(encoder_out.repeat_interleave(4, dim=0))
    words = torch.arange(20)
    for ours, theirs in zip(
        decoder.step(words, shared)[:2],
        decoder.step(words, copied)[:2],
        strict=True,
    ):
        assert_close(ours, theirs)


def test_selecting_keeps_captions_with_their_images(decoder, encoder_out):
    state = decoder.begin(encoder_out).select(torch.arange(10) // 2)
    words = torch.arange(10)
    expected = decoder.step(words, state)[0]
    rows, images = torch.tensor([9, 8, 4, 4]), torch.tensor([4, 2])
    actual = decoder.step(words[rows], state.select(rows, images))[0]
    assert_close(actual, expected[rows])


def test_a_grid_may_keep_its_height_and_width(decoder):
    square = torch.randn(2, 3, 5, D)
    flat = decoder.begin(square.reshape(2, 15, D))
    assert_close(tuple(decoder.begin(square)), tuple(flat))


def test_one_batch_can_be_learned_by_heart(decoder, batch):
    optimizer = torch.optim.Adam(decoder.parameters(), lr=2e-2)
    for _ in range(250):
        output = decoder(*batch)
        loss = nn.functional.cross_entropy(
            output.logits.data, output.targets.data
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_bfloat16_stays_close(decoder, batch):
    expected = decoder(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = decoder(*batch)
    assert_close(
        actual.logits.data.float(), expected.logits.data, atol=0.05, rtol=0
    )
    packed_loss(actual._replace(logits=actual.logits.float())).backward()
    assert decoder.decode_step.weight_ih.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("captions", "lengths", "message"),
    [
        (
            torch.ones(4, 6, dtype=torch.long),
            torch.full((4,), 3),
            "multiple of 5 captions, got 4",
        ),
        (
            torch.ones(5, 6, dtype=torch.long),
            torch.tensor([3, 3, 1, 3, 3]),
            "lengths from 2 to 6",
        ),
        (
            torch.ones(5, 6, dtype=torch.long),
            torch.tensor([3, 3, 7, 3, 3]),
            "lengths from 2 to 6",
        ),
        (
            torch.ones(5, 6, dtype=torch.long),
            torch.tensor([3, 3]),
            "expected 5 lengths",
        ),
    ],
)
def test_captions_and_lengths_are_checked(
    decoder, encoder_out, captions, lengths, message
):
    with pytest.raises(ValueError, match=message):
        decoder(encoder_out, captions, lengths)


def test_a_new_decoder_finds_all_words_about_alike(decoder):
    """The original's first weights: word vectors and scores small and even, no word preferred."""
    for weight in (decoder.embedding.weight, decoder.fc.weight):
        assert 0.09 < weight.abs().max() <= 0.1 and weight.mean().abs() < 0.02
    assert not decoder.fc.bias.any()


def test_parameter_names_are_the_originals(decoder):
    modules = {name.rsplit(".", 1)[0] for name in decoder.state_dict()}
    assert modules == {
        "attention.encoder_att",
        "attention.decoder_att",
        "attention.full_att",
        "embedding",
        "decode_step",
        "init_h",
        "init_c",
        "f_beta",
        "fc",
    }


# Word vectors


def write_vectors(tmp_path, text):
    path = tmp_path / "glove.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_report_47_glove_vectors_land_in_their_rows(tmp_path):
    path = write_vectors(tmp_path, "dog 1 2 3\nzebra 9 9 9\ncat 4 5 6.5\n")
    word_map = {"<pad>": 0, "cat": 1, "dog": 2, "<unk>": 3}
    embeddings, found = read_glove(path, word_map)
    assert sorted(found) == ["cat", "dog"]
    assert embeddings[2].tolist() == [1, 2, 3] and embeddings[1].tolist() == [
        4,
        5,
        6.5,
    ]
    decoder = DecoderWithAttention(2, 3, 2, vocab_size=4, encoder_dim=2)
    decoder.load_pretrained_embeddings(embeddings)
    decoder.fine_tune_embeddings(False)
    assert torch.equal(decoder.embedding.weight, embeddings)
    assert not decoder.embedding.weight.requires_grad
    assert torch.equal(
        read_glove(path, word_map)[0], embeddings
    )  # no hidden randomness


def test_held_embeddings_do_not_move(decoder, batch):
    decoder.fine_tune_embeddings(False)
    before = decoder.embedding.weight.clone()
    optimizer = torch.optim.Adam(
        w for w in decoder.parameters() if w.requires_grad
    )
    packed_loss(decoder(*batch)).backward()
    optimizer.step()
    assert torch.equal(decoder.embedding.weight, before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog 1 2 3\ncat 4 5\n", "not a file of word vectors"),
        ("dog one two\n", "not a file of word vectors"),
        ("dog\n", "not a file of word vectors"),
        ("zebra 1 2\n", "knows none"),
    ],
)
def test_bad_word_vectors_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_glove(write_vectors(tmp_path, text), {"dog": 0})


def test_missing_word_vectors_and_wrong_sizes(decoder, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_glove(tmp_path / "none.txt", {"dog": 0})
    with pytest.raises(
        ValueError, match=r"expected embeddings \(31, 7\), got \(31, 8\)"
    ):
        decoder.load_pretrained_embeddings(torch.zeros(31, 8))


# The model put together

CONFIG = ModelConfig(attention_dim=13, embed_dim=7, decoder_dim=11)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.build(
        [["a", "dog", "on", "the", "grass"]], min_word_freq=1
    )


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(5)
    return torch.randint(
        256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator
    )


def logits_of(model, images):
    captions = torch.tensor([model.vocabulary.encode(["a", "dog"], 5)] * 2)
    with torch.inference_mode():
        return model(images, captions, torch.tensor([4, 4])).logits.data


def test_report_76_113_141_saved_models_hold_no_pickle(
    tmp_path, vocabulary, images
):
    model = CaptionModel(CONFIG, vocabulary).eval()
    model.search, model.metrics = {"beam_size": 3}, {"bleu4": 12.5}
    model.save(tmp_path / "model")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["config.json", "model.safetensors", "vocabulary.json"]
    again = CaptionModel.load(tmp_path / "model")
    assert torch.equal(logits_of(again, images), logits_of(model, images))
    assert again.config == CONFIG and again.search == {"beam_size": 3}
    assert again.metrics == {"bleu4": 12.5}
    assert again.vocabulary.word_map == vocabulary.word_map
    assert not again.training


def test_a_saved_model_names_the_versions_that_made_it(tmp_path, vocabulary):
    CaptionModel(CONFIG, vocabulary).save(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["versions"]
    assert (
        torch.__version__.startswith(stored["torch"])
        and "unknown" not in stored.values()
    )
    assert stored.keys() > {
        "captionlib",
        "torchvision",
        "timm",
        "numpy",
        "pillow",
        "h5py",
    }


def test_packaged_encoder_weights_are_not_repeated(tmp_path, vocabulary):
    CaptionModel(CONFIG, vocabulary).save(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 1e6


def test_a_fine_tuned_encoder_is_saved(tmp_path, vocabulary, images):
    model = CaptionModel(CONFIG, vocabulary)
    model.fine_tune_encoder()
    changed = [
        weight for weight in model.encoder.parameters() if weight.requires_grad
    ]
    assert changed
    with torch.no_grad():
        for weight in changed:
            weight.add_(0.01)
    model.save(tmp_path / "model")
    again = CaptionModel.load(tmp_path / "model")
    assert torch.equal(
        logits_of(again, images), logits_of(model.eval(), images)
    )
    again.save(tmp_path / "again")  # and stays its own when saved once more
    assert (
        json.loads((tmp_path / "again" / "config.json").read_text())[
            "encoder_weights"
        ]
        == "saved"
    )


def test_half_precision_halves_the_file_and_loads_as_float32(
    tmp_path, vocabulary, images
):
    model = CaptionModel(CONFIG, vocabulary).eval()
    model.save(tmp_path / "whole")
    model.save(tmp_path / "half", numbers="float16")
    sizes = [
        (tmp_path / name / "model.safetensors").stat().st_size
        for name in ("whole", "half")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    again = CaptionModel.load(tmp_path / "half")
    assert {weight.dtype for weight in again.decoder.parameters()} == {
        torch.float32
    }
    assert_close(
        logits_of(again, images), logits_of(model, images), atol=1e-2, rtol=0
    )


def test_saving_over_a_model_keeps_the_old_one_when_it_fails(
    tmp_path, vocabulary, images
):
    model = CaptionModel(CONFIG, vocabulary).eval()
    model.save(tmp_path / "model")
    expected = logits_of(model, images)
    model.metrics = {"not json": object()}
    with pytest.raises(TypeError):
        model.save(tmp_path / "model")
    assert torch.equal(
        logits_of(CaptionModel.load(tmp_path / "model"), images), expected
    )


def test_grid_sizes_and_cached_features(vocabulary, images):
    model = CaptionModel(
        dataclasses.replace(CONFIG, grid_size=3), vocabulary
    ).eval()
    with torch.inference_mode():
        encoder_out = model.encode(images)
    assert encoder_out.shape == (2, 3, 3, 1280)
    cached = encoder_out.flatten(1, 2).half()
    assert_close(
        logits_of(model, cached), logits_of(model, images), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize(
    "damage", ["no config", "no weights", "cut weights", "other sizes"]
)
def test_damaged_models_are_named(tmp_path, vocabulary, damage):
    folder = tmp_path / "model"
    CaptionModel(CONFIG, vocabulary).save(folder)
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        stored = json.loads((folder / "config.json").read_text())
        stored["model"]["decoder_dim"] = 12
        (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="model") as caught:
        CaptionModel.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        {"attention_dim": 0},
        {"dropout": 1.0},
        {"feature_dropout": -0.1},
        {"feature_dim": 0},
    ],
)
def test_model_settings_are_checked(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        ModelConfig(**setting)


def test_feature_dropout_acts_in_training_only(vocabulary, images):
    config = dataclasses.replace(CONFIG, dropout=0.0, feature_dropout=0.5)
    model = CaptionModel(
        config,
        vocabulary,
        Encoder(pretrained=False, backbone=CONFIG.backbone, grid_size=None),
    )
    features = torch.randn(2, 4, model.encoder.encoder_dim)
    assert torch.equal(
        logits_of(model.eval(), features), logits_of(model.eval(), features)
    )
    model.train()
    assert not torch.equal(
        logits_of(model, features), logits_of(model, features)
    )


def test_shortened_vectors_are_saved_and_what_the_decoder_sees(
    tmp_path, vocabulary, images
):
    model = CaptionModel(
        dataclasses.replace(CONFIG, feature_dim=9), vocabulary
    ).eval()
    grids = model.encode(images)
    assert (
        grids.shape[-1] == 9
        and model.decoder.attention.encoder_att.in_features == 9
    )
    assert (grids >= 0).all()
    vectors = model.encoder(model.encoder.normalise(images))
    assert_close(
        model.encode(vectors), grids
    )  # from pixels, or from what was cached
    model.save(tmp_path / "model")
    assert torch.equal(
        CaptionModel.load(tmp_path / "model").encode(images), grids
    )


def test_the_size_of_the_images_is_part_of_the_model(
    tmp_path, vocabulary, images
):
    model = CaptionModel(dataclasses.replace(CONFIG, image_size=96), vocabulary)
    assert model.encode(images).shape[1:3] == (3, 3)
    for name, own in (("packaged", False), ("own", True)):
        model.own_encoder = own
        model.save(tmp_path / name)
        assert CaptionModel.load(tmp_path / name).encode(images).shape[1:3] == (
            3,
            3,
        )


def test_saving_replaces_a_captioner_and_nothing_else(tmp_path, vocabulary):
    model = CaptionModel(CONFIG, vocabulary)
    folder = tmp_path / "model"
    model.save(folder)
    model.save(folder)  # a captioner's folder, written anew
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    (photographs / "a.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="holds other files"):
        model.save(photographs)
    assert (photographs / "a.jpg").read_bytes() == b"precious"
