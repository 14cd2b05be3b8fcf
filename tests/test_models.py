"""The segmentation networks: published sizes, torch's own operators as the oracle, dilation, tracing, refusals."""

from __future__ import annotations

import copy
import importlib
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import cv3gpu.nn  # noqa: E402
from cv3gpu.nn import models  # noqa: E402
from cv3gpu.nn.models import _backbones, _blocks  # noqa: E402
from cv3gpu.nn.stock import HEADS, stock  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "fcn32s": ("fcn32s", {}),
    "fcn16s": ("fcn16s", {"padding": "same"}),
    "fcn8s": ("fcn8s", {"padding": "same", "upsampling": "learnt"}),
    "fcn_resnet": ("fcn_resnet", {"backbone": "resnet50", "aux": True}),
    "unet": ("unet", {}),
    "segnet": ("segnet", {}),
    "deeplabv1": ("deeplabv1", {}),
    "deeplabv2": ("deeplabv2", {"backbone": "resnet18"}),
    "deeplabv2-vgg": ("deeplabv2", {"backbone": "vgg16", "output_stride": 16}),
    "deeplabv3": ("deeplabv3", {"backbone": "resnet18", "aux": True}),
    "deeplabv3-mobile": ("deeplabv3", {"backbone": "mobilenet_v3_large", "base_channels": 8}),
    "deeplabv3plus": ("deeplabv3plus", {"backbone": "resnet18"}),
    "deeplabv3plus-mobile": ("deeplabv3plus", {"backbone": "mobilenet_v2", "base_channels": 8, "separable": False}),
    "deeplabv3plus-xception": ("deeplabv3plus", {"backbone": "xception65"}),
    "pspnet": ("pspnet", {"backbone": "resnet18", "aux": True}),
    "refinenet": ("refinenet", {"backbone": "resnet18"}),
}
ELEVEN = (
    *("fcn32s", "fcn16s", "fcn8s", "unet", "segnet", "deeplabv1", "deeplabv2", "deeplabv3", "deeplabv3plus"),
    *("pspnet", "refinenet"),
)


def small(name: str, dtype: Any = None, classes: int = 5, seed: int = 0, **options: Any) -> Any:
    """A narrow network of the table, without dropout."""
    maker, given = SMALL[name]
    torch.manual_seed(seed)
    network = getattr(models, maker)(classes, **({"base_channels": 4} | given | options)).to(dtype)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return network


def settled(network: Any, x: Any) -> Any:
    """The network in evaluation, with the statistics of a batch, so that its values are of ordinary size."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    return network.eval()


def images(*size: int, dtype: Any = None, channels: int = 3) -> Any:
    return torch.randn((2, channels, *size), generator=torch.Generator().manual_seed(1), dtype=dtype)


# ---- sizes ----------------------------------------------------------------------------------------------

# name, arguments, parameters, and the number that was published (in units of 10^4 unless it is exact)
PUBLISHED = [
    ("fcn8s", {}, 134_489_759, 13449),
    ("unet", {}, 31_038_933, 3104),
    ("segnet", {}, 29_455_125, 2946),
    ("deeplabv1", {}, 20_505_429, 2050),
    ("pspnet", {"aux": True}, 49_081_578, 4908),
    ("refinenet", {}, 118_052_437, 11805),
    ("fcn_resnet", {"aux": True}, 35_322_218, 35_322_218),
    ("fcn_resnet", {"backbone": "resnet101", "aux": True}, 54_314_346, 54_314_346),
    ("deeplabv3", {"aux": True}, 42_004_074, 42_004_074),
    ("deeplabv3", {"backbone": "resnet101", "aux": True}, 60_996_202, 60_996_202),
    ("deeplabv3", {"backbone": "mobilenet_v3_large", "aux": True}, 11_029_328, 11_029_328),
]


@pytest.mark.parametrize(("name", "options", "count", "published"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str, options: Any, count: int, published: int) -> None:
    with torch.device("meta"):
        network = getattr(models, name)(21, **options)
    assert sum(p.numel() for p in network.parameters()) == count
    # DeepLab's 20.5 M is rounded to 10^5
    assert published in (count, (count + 5_000) // 10_000, (count + 50_000) // 100_000 * 10)


def test_xception_counts_with_its_statistics() -> None:
    """The number of weights of the authors' checkpoint as Keras counts it: 41 258 213, of which 41 055 413 learnt."""
    with torch.device("meta"):
        network = models.deeplabv3plus(21, backbone="xception65")
    learnt = sum(p.numel() for p in network.parameters())
    assert (learnt, learnt + sum(b.numel() for b in network.buffers() if b.ndim)) == (41_055_413, 41_258_213)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("unet", ["inc.double_conv.0.weight", "down4.maxpool_conv.1.double_conv.4.bias", "up1.up.weight", "outc.conv.bias"]),
        ("fcn8s", ["conv5_3.weight", "fc6.bias", "score_fr.weight", "upscore2.weight", "upscore_pool4.weight", "upscore8.weight", "score_pool3.bias"]),
        ("pspnet", ["layer0.7.running_var", "layer3.0.conv2.weight", "ppm.features.3.1.weight", "cls.4.bias", "aux.4.weight"]),
        ("refinenet", ["conv1.weight", "mflow_conv_g4_b.3_conv_relu_varout_dimred.weight", "mflow_conv_g1_pool.4_outvar_dimred.weight", "p_ims1d2_outl1_dimred.weight", "adapt_stage4_b2_joint_varout_dimred.weight", "clf_conv.bias"]),
        ("deeplabv3plus-mobile", ["backbone.0.0.weight", "backbone.17.conv.3.running_mean", "classifier.project.0.weight", "classifier.aspp.convs.4.1.weight", "classifier.classifier.3.bias"]),
        ("deeplabv3plus", ["classifier.aspp.convs.1.depthwise.weight", "classifier.classifier.1.pointwise.weight"]),
        ("segnet", ["encoder.4.6.weight", "decoder.0.0.weight", "classifier.bias"]),
    ],
)  # fmt: skip
def test_keys(name: str, keys: list[str]) -> None:
    with torch.device("meta"):
        state = small(name).state_dict()
    assert [key for key in keys if key not in state] == []


# ---- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SMALL))
def test_equals_torchs_own_operators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward in both modes, and the gradient of every parameter, in float64."""
    monkeypatch.setattr("cv3gpu.nn.models._pspnet.PyramidHead", HEADS[cv3gpu.nn.PyramidHead])
    x = images(41, 54, dtype=torch.float64)
    network = small(name, torch.float64)
    theirs = stock(network)
    monkeypatch.undo()
    ours, found = network(x), []
    monkeypatch.setattr("cv3gpu.nn.models._pspnet.PyramidHead", HEADS[cv3gpu.nn.PyramidHead])
    reference = theirs(x)
    for given in (ours, reference):
        parts = given if isinstance(given, tuple) else (given,)
        found.append(parts)
        sum((part * images(*part.shape[2:], dtype=torch.float64, channels=5)).sum() for part in parts).backward()
    for mine, wanted in zip(*found, strict=True):
        assert mine.shape == (2, 5, 41, 54) and wanted.abs().max() > 1e-3
        torch.testing.assert_close(mine, wanted, rtol=1e-8, atol=1e-8)
    for (key, p), q in zip(network.named_parameters(), theirs.parameters(), strict=True):
        if p.requires_grad:
            assert q.grad is not None and q.grad.abs().max() > 0, key
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7 * float(q.grad.abs().max()) + 1e-9)
    with torch.no_grad():
        wanted = theirs.eval()(x[:1])
        monkeypatch.undo()
        monkeypatch.setattr(_blocks, "_folds", lambda norm, device: norm is not None)
        got = network.eval()(x[:1])
    torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-9 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", list(SMALL))
def test_any_size_and_scores_before_enlargement(name: str) -> None:
    network = small(name).eval()
    least = network.least
    assert least == {"unet": 16, "segnet": 32}.get(name, 1)
    with torch.no_grad():
        for h, w in ((least, least + 2), (33, 47)):
            assert network(images(h, w)[:1]).shape == (1, 5, h, w)
        x = images(33, 47)
        assert network(x[:0]).shape == (0, 5, 33, 47)
        small_map = network(x, upsample=False)
        enlarged = cv3gpu.interpolate(small_map, (33, 47), mode="bilinear", align_corners=network.align_corners)
        torch.testing.assert_close(enlarged, network(x))


def test_other_channels() -> None:
    assert models.unet(2, in_channels=1, base_channels=4)(images(16, 16, channels=1)).shape == (2, 2, 16, 16)
    assert (
        models.deeplabv3plus(2, backbone="resnet18", in_channels=4, base_channels=4)(images(32, 32, channels=4)).shape[
            1
        ]
        == 2
    )


def test_aux_in_training_only() -> None:
    for name in ("fcn_resnet", "deeplabv3", "pspnet"):
        network = small(name)
        found = network(images(32, 40))
        assert found._fields == ("logits", "aux") and found.aux.shape == found.logits.shape == (2, 5, 32, 40)
        assert isinstance(network.eval()(images(32, 40)), torch.Tensor)
        assert "aux" not in " ".join(small(name, aux=False).state_dict())


def test_hooks_see_every_layer() -> None:
    network, seen = small("deeplabv3").eval(), []
    block = network.backbone.layer1[0]
    x = images(32, 32)
    without = network(x)
    for layer in (block.conv1, block.bn1):
        layer.register_forward_hook(lambda module, args, out: seen.append((type(module).__name__, out)))
    torch.testing.assert_close(network(x), without)
    assert [name for name, _ in seen] == ["Conv2d", "BatchNorm2d"] and bool((seen[1][1] < 0).any())


def test_copies_and_pickles() -> None:
    x = images(32, 32)
    for name in ("segnet", "pspnet", "refinenet"):
        network = small(name).eval()
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(other(x), network(x))


def test_first_values_are_of_ordinary_size() -> None:
    """He's weights: neither vanishing nor exploding logits in training."""
    for name in SMALL:
        found = small(name, classes=16)(images(64, 64))
        logits = found if isinstance(found, torch.Tensor) else found.logits
        assert 0.05 < float(logits.detach().std()) < 20, name


def test_autocast() -> None:
    x = images(32, 32)
    for name in ("unet", "deeplabv3plus"):
        network = small(name).eval()
        with torch.no_grad():
            wanted = network(x)
            with torch.autocast("cpu", torch.bfloat16):
                y = network(x)
        assert y.dtype == torch.bfloat16
        assert float((y.float() - wanted).abs().mean()) < 0.05 * float(wanted.abs().mean() + wanted.std())


# ---- dilation in place of stride ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda s: _backbones.ResNet("resnet18", 3, 8, s),
        lambda s: _backbones.ResNet("resnet50", 3, 4, s),
        lambda s: _backbones.MobileNetV2(3, 0.25, s),
        lambda s: _backbones.Xception(3, 0.05, s),
    ],
    ids=["resnet18", "resnet50", "mobilenet_v2", "xception65"],
)
def test_a_dilated_backbone_gives_the_same_map_more_densely(make: Any) -> None:
    """Every fourth pixel at an output stride of 8 is a pixel at 32: dilated convolutions see the same neighbours."""
    coarse = make(32).double()
    x = images(64, 96, dtype=torch.float64)
    with torch.no_grad():
        settled(coarse, x)
        wanted = coarse(x)[-1]
        for stride, step in ((16, 2), (8, 4)):
            dense = make(stride).double().eval()
            dense.load_state_dict(coarse.state_dict())
            found = dense(x)[-1]
            assert found.shape[2:] == (64 // stride, 96 // stride)
            torch.testing.assert_close(found[:, :, ::step, ::step], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize(
    "name", ["fcn_resnet", "deeplabv1", "deeplabv2", "deeplabv2-vgg", "deeplabv3", "deeplabv3-mobile", "pspnet"]
)
def test_output_stride_is_the_one_asked_for(name: str, stride: int) -> None:
    network = small(name, output_stride=stride).eval()
    assert network(images(64, 96)[:1], upsample=False).shape == (1, 5, 64 // stride, 96 // stride)


def test_rates_follow_the_output_stride() -> None:
    def rates(network: Any) -> list[int]:
        return [
            m.dilation[0] for m in network.classifier.modules() if getattr(m, "dilation", None) and m.dilation[0] > 1
        ]

    assert rates(small("deeplabv3")) == [12, 24, 36] and rates(small("deeplabv3", output_stride=16)) == [6, 12, 18]
    assert rates(small("deeplabv3-mobile")) == [12, 24, 36]
    assert rates(small("deeplabv2")) == [6, 12, 18, 24] and rates(small("deeplabv2", atrous_rates=(2, 3))) == [2, 3]
    assert rates(small("deeplabv1")) == [12] and rates(small("deeplabv1", rate=4)) == [4]


# ---- FCN ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "padding", "size"), [
    *((name, 100, (26, 58)) for name in ("fcn32s", "fcn16s", "fcn8s")),
    *((name, "same", (32, 64)) for name in ("fcn32s", "fcn16s", "fcn8s")),
])  # fmt: skip
def test_fcn_crops_are_centred(name: str, padding: Any, size: tuple[int, int]) -> None:
    """With every kernel mirrored, a mirrored image gives mirrored scores: skips and result are cut symmetrically."""
    network = small(name, torch.float64, padding=padding).eval()
    mirrored = copy.deepcopy(network)
    with torch.no_grad():
        for p in mirrored.parameters():
            if p.ndim == 4:
                p.copy_(p.flip(2, 3))
        x = images(*size, dtype=torch.float64)[:1]
        wanted = network(x)
        torch.testing.assert_close(mirrored(x.flip(2, 3)).flip(2, 3), wanted)
    assert float(wanted.std()) > 0.01


def test_fcn_upsampling_is_bilinear() -> None:
    network = small("fcn8s", padding="same")
    for name, stride in (("upscore2", 2), ("upscore8", 8)):
        layer = getattr(network, name)
        x = images(5, 6, channels=5)
        wanted = torch.nn.functional.interpolate(x, scale_factor=stride, mode="bilinear")
        half = stride // 2
        inner = layer(x)[:, :, stride + half : -stride - half, stride + half : -stride - half]
        torch.testing.assert_close(inner, wanted[:, :, stride:-stride, stride:-stride])
        assert layer.weight.requires_grad
    assert not any(p.requires_grad for n, p in small("fcn16s").named_parameters() if n.startswith("upscore"))


def test_fcn_stages_start_from_the_coarser_one() -> None:
    for before, after, new in (
        ("fcn32s", "fcn16s", {"score_pool4.weight", "score_pool4.bias", "upscore2.weight", "upscore16.weight"}),
        ("fcn16s", "fcn8s", {"score_pool3.weight", "score_pool3.bias", "upscore_pool4.weight", "upscore8.weight"}),
    ):
        found = small(after).load_state_dict(small(before, seed=1).state_dict(), strict=False)
        assert set(found.missing_keys) == new and all(key.startswith("upscore") for key in found.unexpected_keys)


# ---- tracing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ELEVEN)
def test_exports(name: str) -> None:
    network, x = small(name).eval(), images(32, 40)
    with torch.no_grad():
        program = torch.export.export(network, (x,))
        torch.testing.assert_close(program.module()(x), network(x), rtol=1e-4, atol=1e-4)


# ---- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        ("unet", {"num_classes": 0}, ValueError, "unet: num_classes must be from 1 to"),
        ("unet", {"num_classes": "3"}, TypeError, "unet: num_classes must be an integer, got '3'"),
        ("segnet", {"in_channels": 0}, ValueError, "segnet: in_channels must be from 1 to"),
        ("unet", {"base_channels": 6}, ValueError, "unet: base_channels must be a multiple of 4, got 6"),
        ("pspnet", {"base_channels": 0}, ValueError, "pspnet: base_channels must be from 4 to 4096, got 0"),
        ("fcn8s", {"padding": 1}, ValueError, "fcn8s: padding must be 100 or 'same', got 1"),
        ("fcn16s", {"upsampling": "cubic"}, ValueError, "fcn16s: upsampling must be one of 'fixed', 'learnt'"),
        ("fcn_resnet", {"backbone": "vgg16"}, ValueError, "fcn_resnet: backbone must be one of 'resnet18'"),
        ("fcn_resnet", {"output_stride": 4}, ValueError, "fcn_resnet: output_stride must be 8, 16 or 32, got 4"),
        ("deeplabv1", {"output_stride": 8.0}, TypeError, "deeplabv1: output_stride must be an integer, got 8.0"),
        ("deeplabv1", {"rate": 0}, ValueError, "deeplabv1: rate must be from 1 to"),
        ("deeplabv2", {"atrous_rates": 6}, TypeError, "deeplabv2: atrous_rates must be a sequence of integers, got 6"),
        ("deeplabv3", {"atrous_rates": (6, 0)}, ValueError, "deeplabv3: atrous_rates must be from 1 to"),
        ("deeplabv3", {"aux": 1}, TypeError, "deeplabv3: aux must be True or False, got 1"),
        ("deeplabv3plus", {"separable": None}, TypeError, "deeplabv3plus: separable must be True or False"),
        ("deeplabv3plus", {"backbone": 50}, ValueError, "deeplabv3plus: backbone must be one of"),
        ("refinenet", {"backbone": "resnet"}, ValueError, "refinenet: backbone must be one of"),
    ],
)
def test_refuses_arguments(name: str, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught, torch.device("meta"):
        getattr(models, name)(**({"num_classes": 2} | options))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("unet", (1, 1, 32, 32), "unet: x must have shape [N, 3, H, W], got (1, 1, 32, 32)"),
        ("deeplabv3", (3, 32, 32), "deeplabv3: x must have shape [N, 3, H, W], got (3, 32, 32)"),
        ("unet", (1, 3, 15, 32), "unet: x must have at least 16 rows and columns, got (15, 32)"),
        ("segnet", (1, 3, 32, 31), "segnet: x must have at least 32 rows and columns, got (32, 31)"),
        ("fcn8s", (1, 3, 0, 5), "fcn8s: x must have at least 1 rows and columns, got (0, 5)"),
    ],
)
def test_refuses_images(name: str, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        small(name)(torch.zeros(shape))
    assert text in str(caught.value)


def test_networks_are_listed_and_loaded_when_used() -> None:
    assert set(ELEVEN) <= set(models.__all__) and set(ELEVEN) <= set(dir(models))
    for name in ELEVEN:
        found = getattr(models, name)
        importlib.import_module(found.__module__)
        assert callable(getattr(models, name))
    with pytest.raises(AttributeError, match="no attribute 'fcn4s'"):
        _ = models.fcn4s
