"""The segmentation networks against torchvision's: the same keys, the same logits, in both directions."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torchvision.models import alexnet, mobilenet_v2, resnet18, segmentation, vgg11_bn  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu.nn import models  # noqa: E402
from cv3gpu.nn.models import _backbones  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fcn_resnet50": (models.fcn_resnet, {}),
    "fcn_resnet101": (models.fcn_resnet, {"backbone": "resnet101"}),
    "deeplabv3_resnet50": (models.deeplabv3, {}),
    "deeplabv3_resnet101": (models.deeplabv3, {"backbone": "resnet101"}),
    "deeplabv3_mobilenet_v3_large": (models.deeplabv3, {"backbone": "mobilenet_v3_large"}),
}


def theirs(name: str, **options: Any) -> Any:
    return getattr(segmentation, name)(weights=None, weights_backbone=None, **options)


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_same_keys_in_the_same_order(name: str, aux: bool) -> None:
    make, options = NETWORKS[name]
    with torch.device("meta"):
        ours, wanted = (
            make(21, aux=aux, **options).state_dict(),
            theirs(name, aux_loss=aux, num_classes=21).state_dict(),
        )
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in wanted.items()}
    assert (len(ours) == 676) if (name, aux) == ("deeplabv3_resnet101", True) else True


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"])
def test_the_same_logits_both_ways(name: str) -> None:
    make, options = NETWORKS[name]
    torch.manual_seed(0)
    wanted, ours = theirs(name, aux_loss=True, num_classes=21).eval(), make(21, aux=True, **options).eval()
    ours.load_state_dict(wanted.state_dict(), strict=True)
    x = torch.randn(2, 3, 75, 66)
    with torch.no_grad():
        reference = wanted(x)["out"]
        assert float((ours(x) - reference).abs().max()) <= 1e-4 and float(reference.std()) > 1e-3
        other = make(21, aux=True, **options)
        wanted.load_state_dict(other.state_dict(), strict=True)
        a, b = wanted(x)["out"], other.eval()(x)
        assert float((a - b).abs().max()) <= 1e-4 * max(1.0, float(a.abs().max()))
        for network in (wanted, other):
            network.train()
            for module in network.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        first, second = wanted(x), other(x)
        for a, b in ((first["out"], second.logits), (first["aux"], second.aux)):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


def test_mobilenet_v2_has_their_features() -> None:
    torch.manual_seed(0)
    wanted, ours = (
        mobilenet_v2(weights=None).features[:-1].double().eval(),
        _backbones.MobileNetV2(3, 1.0, 32).double().eval(),
    )
    ours.load_state_dict(wanted.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 48, dtype=torch.float64)
    with torch.no_grad():
        low, last = ours(x)
        torch.testing.assert_close(last, wanted(x))
        torch.testing.assert_close(low, wanted[:4](x))


@pytest.mark.parametrize("make", [alexnet, vgg11_bn, resnet18, mobilenet_v2])
def test_classifiers_become_convolutional(make: Any) -> None:
    torch.manual_seed(0)
    classifier = make(weights=None, num_classes=7).eval()
    network = cv3gpu.nn.fully_convolutional(classifier)
    assert not any(isinstance(m, torch.nn.Linear) for m in network.modules())
    assert list(network.state_dict()) == list(classifier.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        wanted, found = classifier(x), network(x)
        assert found.shape == (1, 7, 1, 1)
        torch.testing.assert_close(found[..., 0, 0], wanted, rtol=1e-4, atol=1e-5)
    assert cv3gpu.nn.output_stride(network) == 32
    with torch.device("meta"):
        large = torch.empty(1, 3, 288, 320)
    assert network.to("meta")(large).shape == (1, 7, 3, 4)


@pytest.mark.parametrize(
    ("make", "size", "stride"),
    [(resnet18, 435, 32), (alexnet, 195, 32), (vgg11_bn, 150, 32)],
)
def test_published_receptive_fields(make: Any, size: int, stride: int) -> None:
    """ResNet-18 435, AlexNet 195, VGG-11 150 pixels (features; A. Araujo et al., Distill 2019, where it has them)."""
    with torch.device("meta"):
        classifier = make(weights=None)
    layer = "layer4" if make is resnet18 else "features"
    found = cv3gpu.nn.receptive_field(classifier, layer)
    assert found.size == (size, size) and found.stride == (stride, stride)
