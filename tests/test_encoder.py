"""Chapter 02: borrowed networks, what fine-tuning frees, encoding once."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captionlib.encoder import Encoder, FeatureDataset, encode_once
from captionlib.io.backbones import later_parameters, torchvision
from captionlib.io.files import InputError, write_json

LITE0 = "tf_efficientnet_lite0"
IMAGES, PER_IMAGE = 5, 2


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lite0():
    return Encoder(LITE0, grid_size=None)


@pytest.fixture
def resnet():
    """A small ResNet with weights and statistics unlike each other's."""
    torch.manual_seed(0)
    encoder = Encoder("resnet18", pretrained=False)
    for name, tensor in encoder.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    return encoder


def random_images(count, side=256, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def write_split(
    folder, images, split="TRAIN", base="tiny_2_cap_per_img_1_min_word_freq"
):
    """The files of one split, as `prepare` writes them; returns the image file."""
    words = {"<pad>": 0, "dog": 1, "<unk>": 2, "<start>": 3, "<end>": 4}
    captions = [
        [3] + [1] * (1 + i % 3) + [4] + [0] * (2 - i % 3)
        for i in range(2 * len(images))
    ]
    write_json(folder / f"WORDMAP_{base}.json", words)
    write_json(folder / f"{split}_CAPTIONS_{base}.json", captions)
    write_json(
        folder / f"{split}_CAPLENS_{base}.json",
        [3 + i % 3 for i in range(len(captions))],
    )
    path = folder / f"{split}_IMAGES_{base}.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["captions_per_image"] = PER_IMAGE
        file["images"] = images
    return path


class Stub(Encoder):
    """The interface of an encoder at almost no cost: each channel's mean over a 2x2 grid."""

    def __init__(self):
        nn.Module.__init__(self)
        self.backbone, self.grid_size, self.image_size, self.encoder_dim = (
            "stub",
            2,
            None,
            3,
        )
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))
        self.trunk, self.weight = (
            nn.Identity(),
            nn.Parameter(torch.ones(1), requires_grad=False),
        )
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return nn.functional.adaptive_avg_pool2d(
            images * self.weight, 2
        ).permute(0, 2, 3, 1)


@pytest.fixture
def stub():
    return Stub()


# The encoder


def test_shapes_of_the_original():
    with torch.device("meta"):
        images = torch.zeros(2, 3, 256, 256)
        assert Encoder(pretrained=False)(images).shape == (2, 14, 14, 2048)
        assert Encoder(pretrained=False, grid_size=None)(images).shape == (
            2,
            8,
            8,
            2048,
        )


def test_equals_a_torchvision_trunk_built_here(resnet):
    whole = torchvision.models.resnet18()
    whole.load_state_dict(resnet.trunk.state_dict(), strict=False)
    reference = nn.Sequential(
        *list(whole.children())[:-2], nn.AdaptiveAvgPool2d((14, 14))
    ).eval()
    images = torch.rand(2, 3, 256, 256)
    expected = reference(images).permute(0, 2, 3, 1)
    torch.testing.assert_close(resnet(images), expected, rtol=1e-4, atol=1e-5)


def test_stretched_grid_is_the_native_one_averaged(lite0):
    stretched = Encoder(LITE0, grid_size=14)
    images = lite0.normalise(torch.from_numpy(random_images(1)))
    native = lite0(images).permute(0, 3, 1, 2)  # (1, D, 8, 8)
    assert native.shape == (1, 1280, 8, 8)
    expected = nn.functional.adaptive_avg_pool2d(native, 14).permute(0, 2, 3, 1)
    torch.testing.assert_close(stretched(images), expected)


@pytest.mark.parametrize("side, cells", [(64, 2), (96, 3), (100, 4)])
def test_native_grid_follows_the_image(lite0, side, cells):
    assert lite0(torch.zeros(1, 3, side, side)).shape == (1, cells, cells, 1280)


def test_one_at_a_time_equals_a_batch(lite0):
    images = lite0.normalise(torch.from_numpy(random_images(3, side=64)))
    single = torch.cat([lite0(image[None]) for image in images])
    torch.testing.assert_close(lite0(images), single, rtol=1e-4, atol=1e-5)


def test_output_is_contiguous_whatever_the_layout(lite0):
    images = torch.rand(2, 3, 64, 64)
    plain, last = (
        lite0(images),
        lite0(images.contiguous(memory_format=torch.channels_last)),
    )
    assert plain.is_contiguous()
    torch.testing.assert_close(plain, last)


def test_each_backbone_has_its_own_normalisation(lite0, resnet):
    black, white = (
        torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        torch.full((1, 3, 2, 2), 255),
    )
    white = white.to(torch.uint8)
    assert lite0.normalise(black).unique().tolist() == [-1.0]
    assert lite0.normalise(white).unique().tolist() == [1.0]
    expected = -torch.tensor([0.485, 0.456, 0.406]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(resnet.normalise(black)[0, :, 0, 0], expected)


@pytest.mark.parametrize("scale", [1, 255])
def test_report_101_110_157_floats_are_refused(lite0, scale):
    images = torch.from_numpy(random_images(1, side=8)) / scale
    with pytest.raises(TypeError, match="uint8.*float32.*once already"):
        lite0.normalise(images)


def test_report_101_110_157_images_keep_different_grids(lite0):
    images = torch.from_numpy(random_images(2, side=64))
    images[1] //= 2
    right = lite0(lite0.normalise(images)).flatten(1)
    assert torch.cosine_similarity(right[0], right[1], dim=0) < 0.95
    twice = lite0((images / 255 / 255 - lite0.mean) / lite0.std).flatten(
        1
    )  # what went wrong
    assert torch.cosine_similarity(twice[0], twice[1], dim=0) > 0.99


def test_forward_refuses_stored_pixels(lite0):
    with pytest.raises(TypeError, match="normalise first"):
        lite0(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("size", [0, -1])
def test_impossible_grid_size(size):
    with pytest.raises(ValueError, match="at least 1"):
        Encoder(LITE0, grid_size=size)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224"])
def test_a_backbone_without_a_grid_is_refused(name):
    with (
        torch.device("meta"),
        pytest.raises(InputError, match=f"{name}.*convolutional"),
    ):
        Encoder(name, pretrained=False)


@pytest.mark.parametrize(
    "name, channels", [("resnet50", 2048), ("vgg11", 512), ("resnet18d", 512)]
)
def test_other_backbones(name, channels):
    with torch.device("meta"):
        encoder = Encoder(name, grid_size=None, pretrained=False)
        assert encoder.encoder_dim == channels
        assert encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 8, 8, channels)


# Frozen and fine-tuned


def test_starts_frozen_and_records_nothing(resnet):
    assert not any(parameter.requires_grad for parameter in resnet.parameters())
    out = resnet(torch.rand(1, 3, 64, 64))
    assert out.grad_fn is None and not out.requires_grad


FROZEN = {
    "resnet18": ("trunk.conv1.", "trunk.bn1.", "trunk.layer1."),
    "resnet101": ("trunk.conv1.", "trunk.bn1.", "trunk.layer1."),
    "resnet18d": ("trunk.conv1.", "trunk.bn1.", "trunk.layer1."),
    LITE0: (
        "trunk.conv_stem.",
        "trunk.bn1.",
        "trunk.blocks.0.",
        "trunk.blocks.1.",
    ),
    "convnext_atto": ("trunk.stem.", "trunk.stages.0."),
}


@pytest.mark.parametrize("name", FROZEN)
def test_fine_tune_frees_the_later_stages_only(name):
    with torch.device("meta"):
        encoder = Encoder(name, pretrained=False)
    encoder.fine_tune()
    for key, parameter in encoder.named_parameters():
        assert parameter.requires_grad != key.startswith(FROZEN[name]), key
    encoder.fine_tune(False)
    assert not any(
        parameter.requires_grad for parameter in encoder.parameters()
    )


def test_fine_tune_agrees_with_the_original(resnet):
    resnet.fine_tune()
    whole = torchvision.models.resnet18()
    original = nn.Sequential(*list(whole.children())[:-2])  # its `self.resnet`
    original.requires_grad_(False)
    for child in list(original.children())[5:]:
        child.requires_grad_(True)
    ours = [parameter.requires_grad for parameter in resnet.parameters()]
    assert ours == [
        parameter.requires_grad for parameter in original.parameters()
    ]


def test_gradients_reach_exactly_what_is_free(lite0):
    lite0.fine_tune()
    try:
        lite0(torch.rand(2, 3, 64, 64)).square().sum().backward()
        for name, parameter in lite0.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
    finally:
        lite0.fine_tune(False)
        lite0.zero_grad(set_to_none=True)


def test_nothing_to_free_in_a_network_without_stages():
    trunk = nn.Module()
    trunk.feature_info = [{"module": "blocks.0", "reduction": 16}]
    with pytest.raises(InputError, match="stages"):
        later_parameters(trunk)


def by_hand(encoder):
    for module in encoder.modules():
        module.train()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(
    "set_mode",
    [
        lambda encoder: None,
        lambda encoder: encoder.train(),
        lambda encoder: encoder.eval(),
        lambda encoder: nn.ModuleList([encoder]).train(),
        lambda encoder: encoder.apply(lambda module: module.train()),
        by_hand,
    ],
    ids=["as made", "train", "eval", "parent", "apply", "by hand"],
)
def test_batch_norm_statistics_never_move(resnet, set_mode, free):
    resnet.fine_tune(free)
    before = {
        key: tensor.clone() for key, tensor in resnet.state_dict().items()
    }
    set_mode(resnet)
    resnet(3 * torch.randn(4, 3, 64, 64) + 1)
    after = resnet.state_dict()
    assert any("running" in key for key in after)
    for key, tensor in after.items():
        assert torch.equal(tensor, before[key]), key


def test_mode_changes_no_output(resnet):
    images = torch.rand(2, 3, 64, 64)
    expected = resnet.eval()(images)
    assert torch.equal(resnet.train()(images), expected)
    assert resnet.training  # what was asked for is remembered


def test_state_can_be_saved_and_loaded(lite0):
    state = lite0.state_dict()
    assert all(
        tensor.is_contiguous() for tensor in state.values()
    )  # as safetensors wants them
    fresh = Encoder(LITE0, grid_size=None, pretrained=False)
    images = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(fresh(images), lite0(images))
    fresh.load_state_dict(state)
    assert torch.equal(fresh(images), lite0(images))


def test_images_are_stretched_before_the_network():
    torch.manual_seed(0)
    larger = Encoder(LITE0, grid_size=None, image_size=96, pretrained=False)
    plain = Encoder(LITE0, grid_size=None, pretrained=False)
    plain.load_state_dict(larger.state_dict())
    images = torch.rand(2, 3, 64, 48)
    stretched = F.interpolate(
        images, (96, 96), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(larger(images), plain(stretched))
    assert larger(images).shape[1:3] == (3, 3)
    with pytest.raises(ValueError, match="image_size"):
        Encoder(LITE0, image_size=16, pretrained=False)


# Encoded once


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_encode_once_equals_encoding(stub, batch_size):
    images = torch.from_numpy(random_images(IMAGES))
    batches = list(encode_once(stub, images, batch_size))
    assert [len(batch) for batch in batches][:-1] == [batch_size] * (
        (IMAGES - 1) // batch_size
    )
    grids = torch.cat(batches)
    assert grids.shape == (IMAGES, 2, 2, 3) and grids.dtype == torch.float16
    assert torch.equal(grids, stub(stub.normalise(images)).half())
    assert not grids.requires_grad


# The dataset


def test_feature_dataset_gives_an_image_and_its_captions(tmp_path):
    write_split(tmp_path, random_images(IMAGES))
    features = (
        np.random.default_rng(0).random((IMAGES, 4, 3)).astype(np.float16)
    )
    dataset = FeatureDataset(tmp_path, "TRAIN", features)
    assert len(dataset) == IMAGES
    for i in range(IMAGES):
        grid, captions, lengths = dataset[i]
        assert grid.shape == (4, 3) and grid.dtype == torch.float16
        np.testing.assert_array_equal(grid.numpy(), features[i])
        assert (
            captions.shape == (PER_IMAGE, 5) and captions.dtype == torch.int64
        )
        assert lengths.tolist() == [
            3 + (2 * i + j) % 3 for j in range(PER_IMAGE)
        ]
        assert (captions == 4).nonzero()[:, 1].tolist() == (
            lengths - 1
        ).tolist()  # <end>


def test_feature_dataset_takes_a_tensor(tmp_path):
    write_split(tmp_path, random_images(IMAGES))
    vectors = torch.rand(IMAGES, 4, 3)
    assert torch.equal(
        FeatureDataset(tmp_path, "TRAIN", vectors)[3][0], vectors[3]
    )


def test_feature_dataset_refuses_another_splits_features(tmp_path):
    write_split(tmp_path, random_images(IMAGES))
    with pytest.raises(
        InputError, match=f"{IMAGES} images.*{IMAGES - 1}.*encode this split"
    ):
        FeatureDataset(tmp_path, "TRAIN", torch.rand(IMAGES - 1, 4, 3))


def test_fine_tuning_freezes_the_earlier_stages_again(lite0):
    lite0.requires_grad_(True)
    lite0.fine_tune()
    free = [name for name, p in lite0.named_parameters() if p.requires_grad]
    assert free and not any("conv_stem" in name for name in free)
    lite0.fine_tune(False)
    assert not any(p.requires_grad for p in lite0.parameters())
