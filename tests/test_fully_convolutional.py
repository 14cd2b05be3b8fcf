"""Classifiers made convolutional, receptive fields and output strides: against gradients, and published numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu.nn import fully_convolutional, models, output_stride, receptive_field  # noqa: E402
from cv3gpu.nn.receptive import reach_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def images(*shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def features() -> list[Any]:
    return [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()]


class Classifier(nn.Module):
    """VGG's form, with a flattening of any kind."""

    def __init__(self, flatten: str, pool: Any = (4, 4)) -> None:
        super().__init__()
        self.features, self.flatten = nn.Sequential(*features(), nn.MaxPool2d(2)), flatten
        self.avgpool = nn.Identity() if pool is None else nn.AdaptiveAvgPool2d(pool)
        n = 6 * 16 if pool is None else 6 * math.prod(pool)
        self.classifier = nn.Sequential(
            nn.Linear(n, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 7), nn.BatchNorm1d(7), nn.Linear(7, 5)
        )

    def forward(self, x: Any) -> Any:
        x = self.avgpool(self.features(x))
        if self.flatten == "flatten":
            x = torch.flatten(x, 1)
        elif self.flatten == "method":
            x = x.flatten(start_dim=1)
        elif self.flatten == "view":
            x = x.view(x.size(0), -1)
        else:
            x = torch.reshape(x, (x.shape[0], 96))
        return self.classifier(x)


class Rolled(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.roll(x, 1, 2)


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features, self.fc = nn.Sequential(*features()), nn.Linear(6, 5)

    def forward(self, x: Any) -> Any:
        return functional.log_softmax(self.fc(functional.dropout(self.features(x).mean([2, 3]), 0.2, self.training)), 1)


def sliding(classifier: Any, x: Any, side: int, step: int) -> Any:
    """The classifier at every window of an image."""
    rows, columns = ((n - side) // step + 1 for n in x.shape[2:])
    found = [
        [classifier(x[:, :, i * step : i * step + side, j * step : j * step + side]) for j in range(columns)]
        for i in range(rows)
    ]
    return torch.stack([torch.stack(row, -1) for row in found], -2)


# ---- fully convolutional --------------------------------------------------------------------------------


@pytest.mark.parametrize("flatten", ["flatten", "method", "view", "reshape"])
@pytest.mark.parametrize("size", [16, None])
def test_equal_at_the_training_size(flatten: str, size: int | None) -> None:
    torch.manual_seed(0)
    classifier = Classifier(flatten, None).double().eval()
    network = fully_convolutional(classifier, size)
    x = images(2, 3, 16, 16)
    torch.testing.assert_close(network(x), classifier(x)[..., None, None])
    assert network(images(1, 3, 32, 48)).shape == (1, 5, 5, 9)
    assert list(network.state_dict()) == list(classifier.state_dict())
    assert network.get_parameter("classifier.0.weight").shape == (10, 6, 4, 4)
    assert classifier.classifier[0].weight.shape == (10, 96)  # it stays as it was
    network.get_parameter("classifier.3.weight").data.zero_()
    assert bool(classifier.classifier[3].weight.any())


def test_a_map_is_the_classifier_at_every_window() -> None:
    """Without padding exactly; the stride is that of the pools."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(5 * 25, 8),
        nn.Sigmoid(),
        nn.Linear(8, 3),
        nn.Softmax(-1),
    ]
    classifier = nn.Sequential(*layers).double().eval()
    network, x = fully_convolutional(classifier, 16), images(1, 3, 22, 26)
    torch.testing.assert_close(network(x), sliding(classifier, x, 16, 2))


@pytest.mark.parametrize(
    ("pool", "size", "kernel", "stride"), [((4, 4), 16, None, None), ((2, 2), 16, 2, 2), ((1, 1), 16, 4, 1)]
)
def test_adaptive_means(pool: Any, size: int, kernel: Any, stride: Any) -> None:
    torch.manual_seed(0)
    classifier = Classifier("flatten", pool).double().eval()
    network = fully_convolutional(classifier, size)
    x = images(2, 3, size, size)
    torch.testing.assert_close(network(x), classifier(x)[..., None, None])
    found = [n.args[1:] for n in network.graph.nodes if n.target is functional.avg_pool2d]
    assert found == ([] if kernel is None else [((kernel, kernel), (stride, stride))])


def test_global_mean_is_a_window() -> None:
    torch.manual_seed(0)
    classifier = Mean().double().eval()
    network, x = fully_convolutional(classifier, 16), images(1, 3, 16, 16)
    torch.testing.assert_close(network(x), classifier(x)[..., None, None])
    assert network(images(1, 3, 20, 24)).shape == (1, 5, 3, 5)
    assert network.training is False and fully_convolutional(Mean(), 16).training is True


def test_trains() -> None:
    network = fully_convolutional(nn.Sequential(*features(), nn.Flatten(), nn.Linear(6 * 64, 5)), 16)
    x = images(2, 3, 20, 24).float()
    network(x).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_takes_our_layers() -> None:
    torch.manual_seed(0)
    block = [cv3gpu.nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), cv3gpu.nn.MaxPool2d(4)]
    classifier = nn.Sequential(*block, nn.Flatten(), nn.Linear(4 * 16, 5)).eval()
    network, x = fully_convolutional(classifier), images(1, 3, 16, 16).float()
    torch.testing.assert_close(network(x)[..., 0, 0], classifier(x))


@pytest.mark.parametrize(
    ("make", "size", "error", "text"),
    [
        (lambda: "vgg16", None, TypeError, "classifier must be a torch.nn.Module, got str"),
        (lambda: nn.Sequential(*features()), None, ValueError, "must have a linear layer behind a map that is flattened, got none"),
        (lambda: nn.Sequential(nn.Linear(3, 2)), None, ValueError, "classifier must have a convolution, got none"),
        (lambda: nn.Sequential(*features(), nn.Flatten(), nn.Linear(7, 2)), None, ValueError, "must have maps that fit its linear layers, got 6 x 112 x 112 in front of 6 with 7"),
        (lambda: nn.Sequential(*features(), nn.Flatten(), nn.Linear(96, 2)), 32, ValueError, "give another size"),
        (lambda: nn.Sequential(*features(), nn.Flatten(), nn.Linear(96, 2)), 0, ValueError, "size must be from 1 to"),
        (lambda: nn.Sequential(*features(), nn.Flatten(), nn.LayerNorm(96), nn.Linear(96, 2)), 8, ValueError, "must have only linear layers, norms and pointwise layers after its flattening"),
        (lambda: nn.Sequential(*features(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 2)), 16, ValueError, "must pool equal windows at the size, got 3 x 3 means of a map of 8 x 8"),
        (lambda: nn.Sequential(*features(), nn.Conv2d(6, 6, 9), nn.Flatten(), nn.Linear(54, 2)), 8, ValueError, "must take images of the size"),
    ],
)  # fmt: skip
def test_refuses_classifiers(make: Any, size: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        fully_convolutional(make(), size)
    assert str(caught.value).startswith("fully_convolutional: ") and text in str(caught.value)


def test_refuses_what_depends_on_values_and_layers_used_twice() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.fc(x.mean((2, 3))) if x.sum() > 0 else x

    class Twice(Branches):
        def forward(self, x: Any) -> Any:
            return self.fc(self.fc(self.conv(x).mean((2, 3))))

    class Shifted(Branches):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.ones(4))

        def forward(self, x: Any) -> Any:
            return self.fc(self.conv(x).mean((2, 3)) + self.shift)

    with pytest.raises(ValueError, match="must have only linear layers, norms and pointwise layers"):
        fully_convolutional(Shifted())
    with pytest.raises(ValueError, match=r"must be traceable by torch\.fx"):
        fully_convolutional(Branches())
    with pytest.raises(ValueError, match="must use each layer once after its flattening, got fc again"):
        fully_convolutional(Twice())


# ---- receptive fields -----------------------------------------------------------------------------------


def positive(model: Any) -> Any:
    """Float64 with positive weights: no derivative cancels, and no ReLU is shut."""
    for p in model.double().eval().parameters():
        p.data.abs_().add_(0.01)
    return model


def support(model: Any, x: Any, row: int, column: int) -> tuple[int, int, int, int]:
    """First and last row and column of the image on which a pixel's derivative is not zero."""
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(x)[0, :, row, column].sum(), x)
    rows, columns = grad[0].abs().sum((0, 2)).nonzero(), grad[0].abs().sum((0, 1)).nonzero()
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


class Branching(nn.Module):
    """Branches of different depth, joined at several scales by torch's functions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.c, self.up = nn.Conv2d(8, 4, (1, 5), padding=(0, 2)), nn.ConvTranspose2d(4, 2, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        a = functional.relu(self.a(x))
        b = functional.avg_pool2d(functional.pad(self.b(a), (1, 0, 1, 0)), 2)
        b = functional.interpolate(b, a.shape[2:], mode="bilinear", align_corners=False)
        y = self.up(self.c(torch.cat([a, b], 1)))[:, :, 1:-1]
        return functional.pixel_shuffle(functional.softmax(torch.cat([y, y], 1) * 0.01, 1), 2)


class Shuffling(nn.Module):
    """A channel shuffle, a depthwise convolution, a crop, reflection, nearest and bicubic enlargement."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect")

    def forward(self, x: Any) -> Any:
        y = self.a(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = self.b(y)[:, :, 2:, ::2]
        y = functional.interpolate(y, scale_factor=(2, 1), mode="nearest")
        return functional.interpolate(y.clamp(min=0), scale_factor=0.5, mode="bilinear", align_corners=True)


def ours() -> Any:
    """Layers of this library, unpooling apart: which pixel a maximum came from is no derivative."""
    return nn.Sequential(
        cv3gpu.nn.Conv2d(3, 4, 3, 2, 1),
        cv3gpu.nn.SeparableConv2d(4, 4, 3, padding=2, dilation=2, mid_norm=True, norm=True),
        cv3gpu.nn.ConvTranspose2d(4, 3, 3, 2, 1),
        cv3gpu.nn.ResizeConv2d(3, 3, (2, 3), scale_factor=1.5, dilation=2),
        cv3gpu.nn.Upsample(scale_factor=2, mode="bilinear"),
        cv3gpu.nn.Conv2d(3, 2, 3, 3),
    )


NETWORKS: dict[str, Any] = {
    "branching": Branching,
    "shuffling": Shuffling,
    "ours": ours,
    "fcn8s": lambda: models.fcn8s(2, base_channels=4, padding="same"),
    "unet": lambda: models.unet(2, base_channels=4),
    "deeplabv3plus-backbone": lambda: models.deeplabv2(2, backbone="resnet18", base_channels=4, atrous_rates=(2,)),
    "aspp": lambda: models.deeplabv3(2, backbone="resnet18", base_channels=4),
}


class Averaging(nn.Module):
    """A mean in place of a maximum, which has a derivative at one pixel of a window only."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Any) -> Any:
        k, s, p = (self.pool.kernel_size, self.pool.stride, self.pool.padding)
        return functional.avg_pool2d(x, k, s, p, self.pool.ceil_mode)


def without_maxima(model: nn.Module) -> Any:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, Averaging(child))
    return model


@pytest.mark.parametrize("name", list(NETWORKS))
def test_fields_are_the_support_of_the_gradient(name: str) -> None:
    """At corners, borders and inside."""
    torch.manual_seed(0)
    model, size = positive(without_maxima(NETWORKS[name]())), (72, 90)
    rows, columns = reach_of("receptive_field", model, size, None, 3)
    x = images(1, 3, *size).abs()
    h, w = model(x).shape[2:]
    assert (h, w) == (len(rows.first), len(columns.first))
    for i, j in ((0, 0), (h // 2, w // 3), (h // 3 + 1, w // 2), (h - 1, w - 1), (h // 2 + 3, w - 2)):
        wanted = rows.first[i], rows.last[i], columns.first[j], columns.last[j]
        assert support(model, x, i, j) == wanted, (i, j)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_chains_have_the_closed_form(layers: list[tuple[int, int, int, int, bool]]) -> None:
    """Size 1 + sum (k - 1) d j, stride j = prod s, and the centre (size - 1) / 2 - sum p j."""
    extent, jump, start, modules = 1, 1, 0, []
    for kernel, stride, padding, dilation, pool in layers:
        padding = min(padding, kernel // 2) if pool else padding
        dilation = 1 if pool else dilation
        modules.append(
            nn.AvgPool2d(kernel, stride, padding) if pool else nn.Conv2d(2, 2, kernel, stride, padding, dilation)
        )
        extent += (kernel - 1) * dilation * jump
        start -= padding * jump
        jump *= stride
    chain = nn.Sequential(nn.Conv2d(2, 2, 1), *modules).to("meta")
    found = receptive_field(chain)
    assert found.size == (extent, extent) and found.stride == (jump, jump)
    assert found.offset == (start + (extent - 1) / 2,) * 2
    assert output_stride(chain, size=900) == jump


def test_published_fields() -> None:
    """Of FCN-VGG16: 404 pixels and a stride of 32 (Long et al., table 1)."""
    with torch.device("meta"):
        found = receptive_field(models.fcn32s(21, base_channels=4), "fc7")
        assert found.size == (404, 404) and found.stride == (32, 32)
        assert receptive_field(models.deeplabv1(21, base_channels=4), "backbone").stride == (8, 8)


def test_infinite_where_all_of_the_image_counts() -> None:
    with torch.device("meta"):
        network = models.deeplabv3(3, backbone="resnet18", base_channels=4)
        pyramid = models.pspnet(3, backbone="resnet18", base_channels=4)
    for model in (network, pyramid):
        found = receptive_field(model)
        assert found.size == (math.inf, math.inf) and found.stride == (1, 1)
    found = receptive_field(network, "backbone.layer1")
    assert math.isfinite(found.size[0]) and found.stride == (4, 4)
    assert receptive_field(Mean(), size=16).size == (16, 16)


def test_model_is_left_as_it_was() -> None:
    network = models.unet(2, base_channels=4)
    network.inc.eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    receptive_field(network, "down1")
    assert network.training and not network.inc.training and network.up1.training
    assert not network.down1._forward_hooks
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "stride"),
    [
        *((name, {"output_stride": s}, s) for name in ("deeplabv1", "deeplabv3plus", "pspnet") for s in (8, 16, 32)),
        ("unet", {}, 16),
        ("segnet", {}, 32),
        ("fcn8s", {}, 32),
        ("refinenet", {}, 32),
        ("deeplabv3", {"backbone": "mobilenet_v3_large"}, 16),
    ],
)
def test_output_strides_of_the_networks(name: str, options: dict[str, Any], stride: int) -> None:
    if name in ("deeplabv3plus", "pspnet", "refinenet"):
        options = {"backbone": "resnet18", **options}
    with torch.device("meta"):
        network = getattr(models, name)(2, base_channels=8, **options)
    assert output_stride(network) == stride


def test_output_stride_of_an_anisotropic_network() -> None:
    assert output_stride(nn.Sequential(nn.Conv2d(3, 4, 3, (2, 4)), nn.Conv2d(4, 4, 3, (1, 2)))) == (2, 8)


@pytest.mark.parametrize(
    ("make", "arguments", "error", "text"),
    [
        (lambda: None, {}, TypeError, "model must be a torch.nn.Module, got None"),
        (lambda: nn.Sequential(nn.ReLU()), {}, ValueError, "model must have a convolution, got none"),
        (Mean, {"layer": "head"}, ValueError, "layer must be the name of a module of the model, got 'head'"),
        (Mean, {"layer": 3}, ValueError, "layer must be the name of a module of the model, got 3"),
        (Mean, {"size": -4}, ValueError, "size must be from 1 to"),
        (Mean, {"in_channels": "3"}, TypeError, "in_channels must be an integer"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Rolled()),
            {},
            ValueError,
            "model must be of operators whose receptive field is known, got aten::roll",
        ),
    ],
)
def test_refuses_models(make: Any, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    for op in (receptive_field, output_stride):
        with pytest.raises(error) as caught:
            op(make(), **arguments)
        assert str(caught.value).startswith(f"{op.__name__}: ") and text in str(caught.value)
