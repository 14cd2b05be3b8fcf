"""Operators put into the segmentation models of torchvision and segmentation-models-pytorch: the same logits."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torchvision.models import segmentation  # noqa: E402

from cv3gpu.nn import drop_in, drop_out  # noqa: E402

TORCHVISION = ["fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
SMP: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("Unet", {}),
    "unet of bilinear steps": ("Unet", {"decoder_interpolation": "bilinear"}),
    "fpn": ("FPN", {}),
    "deeplabv3+": ("DeepLabV3Plus", {}),
    "deeplabv3+ on MobileNetV2": ("DeepLabV3Plus", {"encoder_name": "mobilenet_v2"}),
    "pspnet": ("PSPNet", {}),
    "linknet": ("Linknet", {}),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def lively(model: Any) -> Any:
    """In evaluation, with batch norms that are not the identity and keep numbers of about one."""
    draw = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for x, low, high in ((module.running_var, 0.5, 2), (module.running_mean, -0.3, 0.3)):
                x.uniform_(low, high, generator=draw)
    return model.eval()


def scores(model: Any, x: Any) -> Any:
    with torch.no_grad():
        found = model(x)
    return found["out"] if isinstance(found, dict) else found


def same_logits(model: Any, x: Any) -> Any:
    """The report, where logits and labels are those of torch's layers."""
    want, state, text = scores(model, x), dict(model.state_dict(keep_vars=True)), repr(model)
    report = drop_in(model)
    got = scores(model, x)
    assert report.replaced and float(want.std()) > 1e-3
    limit = 1e-4 * max(1.0, float(want.abs().max()))
    assert float((got - want).abs().max()) <= limit
    first, second = want.topk(2, 1).values.unbind(1)
    assert torch.equal(got.argmax(1)[first - second > 2 * limit], want.argmax(1)[first - second > 2 * limit])
    after = model.state_dict(keep_vars=True)
    assert after.keys() == state.keys() and all(after[name] is x for name, x in state.items())
    assert repr(model) == text
    assert torch.equal(scores(copy.deepcopy(model), x), got)
    assert drop_out(model) == [row.name for row in report.replaced]
    assert torch.equal(scores(model, x), want)
    return report


def operators(report: Any) -> dict[str, int]:
    names = [row.what for row in report.replaced]
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    torch.manual_seed(0)
    options = {"weights": None, "weights_backbone": None, "num_classes": 21}
    model = lively(getattr(segmentation, name)(**options))
    report = same_logits(model, torch.randn(1, 3, 65, 97))
    found = operators(report)
    assert not report.skipped
    assert found["conv2d"] == sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    assert found.get("aspp", 0) == name.startswith("deeplab")


def test_torchvision_backbone_with_separable_convolutions() -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    model = lively(mobilenet_v2(weights=None, num_classes=10))
    assert operators(same_logits(model, torch.randn(1, 3, 64, 64)))["separable_conv2d"] == 17


def test_training_steps_are_those_of_torch() -> None:
    torch.manual_seed(0)
    options = {"weights": None, "weights_backbone": None, "num_classes": 5, "aux_loss": True}
    model = segmentation.deeplabv3_mobilenet_v3_large(**options).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    twin, x = copy.deepcopy(model), torch.randn(2, 3, 65, 65)
    drop_in(model)
    for each in (model, twin):
        found = each(x)
        (found["out"].square().mean() + found["aux"].square().mean()).backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        largest = float(q.grad.abs().max())
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-2, atol=1e-3 * largest + 1e-7, msg=name)


@pytest.mark.parametrize("name", list(SMP))
def test_segmentation_models_pytorch(name: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    kind, options = SMP[name]
    torch.manual_seed(0)
    chosen = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 7, **options}
    model = lively(getattr(smp, kind)(**chosen))
    report = same_logits(model, torch.randn(1, 3, 64, 96))
    found = operators(report)
    assert all("subclass" in row.why or row.what == "aspp" for row in report.skipped)
    if kind == "DeepLabV3Plus":  # its ASPP has separable branches: three of them, and two more
        assert found["separable_conv2d"] >= 5 and "interpolate" in found


def test_the_other_aspp() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    model = lively(smp.DeepLabV3("resnet18", encoder_weights=None, classes=4, encoder_output_stride=16))
    assert operators(same_logits(model, torch.randn(1, 3, 64, 64)))["aspp"] == 1
