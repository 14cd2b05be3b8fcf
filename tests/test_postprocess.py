"""What follows a network: a dense CRF, clusters of features, files of weights and labels of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import cv3gpu  # noqa: E402
from cv3gpu import _weights  # noqa: E402
from cv3gpu.errors import DataFormatError  # noqa: E402
from cv3gpu.nn import DenseCRF, WithCRF, cluster_features, models, postprocess, refine  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")

H, W = 18, 24


def scene(n: int = 2) -> tuple[Any, Any]:
    """Pictures [n, 3, H, W], 0 to 255, of a bright disc on a dark ground, and which pixels are the disc."""
    draw = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    labels = torch.stack([((y - 7 - k) ** 2 + (x - 9 - 3 * k) ** 2 < 30).long() for k in range(n)])
    colours = torch.tensor([[40.0, 60.0, 50.0], [190.0, 170.0, 120.0]])[labels].permute(0, 3, 1, 2)
    return (colours + 6 * torch.randn(colours.shape, generator=draw)).clamp(0, 255), labels


def doubtful(labels: Any, strength: float = 1.0) -> Any:
    """Logits [n, 2, H, W] that are right on the whole."""
    draw = torch.Generator().manual_seed(1)
    right = functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()
    return strength * (2 * right - 1) + 1.5 * torch.randn(right.shape, generator=draw)


# ---- refine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corners", [False, True])
def test_refine_is_softmax_enlarged_and_a_crf(corners: bool) -> None:
    image, labels = scene()
    logits = functional.avg_pool2d(doubtful(labels), 2).double()
    large = functional.interpolate(logits, (H, W), mode="bilinear", align_corners=corners)
    options = {"theta_alpha": 12.0, "n_iter": 3, "compat_bilateral": 4.0}
    got = refine(logits, image.double(), align_corners=corners, **options)
    want = [
        cv3gpu.dense_crf(-one.log_softmax(0).numpy(), picture.movedim(0, -1).double().numpy(), **options)
        for one, picture in zip(large, image, strict=True)
    ]
    np.testing.assert_allclose(got.numpy(), np.stack(want), atol=1e-6)
    np.testing.assert_allclose(got.sum(1).numpy(), 1, atol=1e-6)


def test_refine_mends_doubtful_labels() -> None:
    image, labels = scene()
    logits = doubtful(labels)
    before = (logits.argmax(1) == labels).float().mean()
    after = (refine(logits, image.byte(), theta_alpha=15.0).argmax(1) == labels).float().mean()
    assert before < 0.85 and after > 0.98
    half = refine(logits.bfloat16(), image.bfloat16(), theta_alpha=15.0)
    assert half.dtype == torch.float32 and (half.argmax(1) == labels).float().mean() > 0.97
    assert refine(logits[:0], image[:0]).shape == (0, 2, H, W)


def test_refine_is_differentiable() -> None:
    image, labels = scene(1)
    logits = functional.avg_pool2d(doubtful(labels), 2).requires_grad_()
    (refine(logits, image, n_iter=2)[0, 1] * labels[0]).sum().backward()
    assert logits.grad.abs().max() > 0 and logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("error", "text", "change"),
    [
        (TypeError, "refine: logits must be a torch.Tensor, got ndarray", {"logits": np.zeros((1, 2, 3, 4))}),
        (TypeError, "refine: logits must have dtype float16 .* got int64", {"logits": torch.zeros(1, 2, 3, 4).long()}),
        (
            ValueError,
            r"refine: logits must have shape \[N, L, h, w\], got \(2, 3, 4\)",
            {"logits": torch.zeros(2, 3, 4)},
        ),
        (TypeError, "refine: image must be a torch.Tensor, got None", {"image": None}),
        (TypeError, "refine: image must have dtype .* got int32", {"image": torch.zeros(1, 3, 8, 8).int()}),
        (
            ValueError,
            r"refine: image must have shape \[1, C, H, W\], got \(2, 3, 8, 8\)",
            {"image": torch.zeros(2, 3, 8, 8)},
        ),
        (ValueError, r"refine: image must have shape \[1, C, H, W\], got \(8, 8, 3\)", {"image": torch.zeros(8, 8, 3)}),
        (TypeError, "refine: align_corners must be True or False", {"align_corners": 1}),
        (ValueError, "n_iter must be from 0", {"n_iter": -1}),
        (ValueError, "theta_alpha", {"theta_alpha": -3.0}),
        (ValueError, "method must be one of", {"method": "grid"}),
        (TypeError, "unexpected keyword", {"theta": 3.0}),
    ],
)
def test_refine_refuses(error: type[Exception], text: str, change: dict[str, Any]) -> None:
    given = {"logits": torch.zeros(1, 2, 4, 4), "image": torch.zeros(1, 3, 8, 8)} | change
    with pytest.raises(error, match=text):
        refine(given.pop("logits"), given.pop("image"), **given)


# ---- a CRF as the last layer ----------------------------------------------------------------------------

MEAN, STD = (0.4, 0.5, 0.45), (0.2, 0.25, 0.3)


def normalised(image: Any) -> Any:
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    return (image / 255 - mean) / std


def test_layer_sees_the_picture() -> None:
    image, _ = scene()
    torch.manual_seed(0)
    network, crf = nn.Conv2d(3, 2, 4, stride=2, padding=1), DenseCRF(2, theta_alpha=12.0, n_iter=3)
    layer, x = WithCRF(network, crf, mean=MEAN, std=STD), normalised(image)
    large = functional.interpolate(network(x), (H, W), mode="bilinear", align_corners=False)
    torch.testing.assert_close(layer(x), crf(large, image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(WithCRF(network, crf)(x), crf(large, x), rtol=1e-4, atol=1e-4)
    assert set(layer.state_dict()) == {f"network.{k}" for k in network.state_dict()} | {
        f"crf.{k}" for k in crf.state_dict()
    }
    assert layer.double().mean.dtype == torch.float64


def test_end_to_end_training_lowers_the_loss() -> None:
    image, labels = scene()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    layer, x = (
        WithCRF(network, DenseCRF(2, theta_alpha=12.0, compat_bilateral=2.0, n_iter=3), mean=MEAN, std=STD),
        normalised(image),
    )
    rates = [{"params": network.parameters(), "lr": 0.05}, {"params": layer.crf.parameters(), "lr": 0.01}]
    optimizer, losses = torch.optim.SGD(rates), []
    for step in range(3):
        loss = functional.cross_entropy(layer(x), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
            assert layer.crf.compat_bilateral.grad.abs() > 0
            slope(layer, x, labels)
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


def slope(layer: Any, x: Any, labels: Any) -> None:
    """The gradient of a weight of the network, through the CRF, is that of differences."""
    with torch.no_grad():
        weight, h = layer.network[2].bias, 1e-2
        at = [functional.cross_entropy(layer(x), labels).item() for shift in (h, -2 * h) if [weight[0].add_(shift)]]
        weight[0].add_(h)
    assert (at[0] - at[1]) / (2 * h) == pytest.approx(weight.grad[0].item(), rel=0.05)


def test_networks_of_every_kind() -> None:
    image, _ = scene(1)
    x, crf = normalised(image), DenseCRF(3, n_iter=1)
    unet = models.unet(3, base_channels=4).eval()
    layer = WithCRF(unet, crf, mean=MEAN, std=STD)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), crf(unet(x), image), rtol=1e-3, atol=1e-3)

    class Named(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"out": unet(x), "aux": None}

    class Pair(nn.Module):
        def forward(self, x: Any) -> Any:
            return unet(x), None

    for other in (Named(), Pair()):
        assert WithCRF(other, crf)(x).shape == (1, 3, H, W)


@pytest.mark.parametrize(
    ("error", "text", "change"),
    [
        (TypeError, "WithCRF: network must be a torch.nn.Module, got None", {"network": None}),
        (TypeError, "WithCRF: crf must be a torch.nn.Module, got str", {"crf": "lattice"}),
        (ValueError, "WithCRF: std must be given where the other is", {"mean": MEAN}),
        (ValueError, "WithCRF: mean must be given where the other is", {"std": STD}),
        (ValueError, "WithCRF: std must be finite and positive, got 0.0", {"mean": MEAN, "std": (0.0, 1.0, 1.0)}),
        (TypeError, "WithCRF: mean must be a number for each channel, got 0.5", {"mean": 0.5, "std": STD}),
        (TypeError, "WithCRF: mean must be a number, got 'a'", {"mean": ["a"], "std": STD}),
        (ValueError, "WithCRF: mean must be finite", {"mean": [float("nan")] * 3, "std": STD}),
    ],
)
def test_layer_refuses(error: type[Exception], text: str, change: dict[str, Any]) -> None:
    given = {"network": nn.Identity(), "crf": nn.Identity()} | change
    with pytest.raises(error, match=text):
        WithCRF(given.pop("network"), given.pop("crf"), **given)


def test_layer_refuses_what_does_not_fit() -> None:
    crf = DenseCRF(2, n_iter=1)
    with pytest.raises(ValueError, match=r"WithCRF: x must have shape \[N, 3, H, W\], got \(1, 1, 4, 4\)"):
        WithCRF(nn.Conv2d(1, 2, 1), crf, mean=MEAN, std=STD)(torch.zeros(1, 1, 4, 4))
    with pytest.raises(TypeError, match=r"network: result must be a torch.Tensor, got str"):
        WithCRF(Wrong(), crf)(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="DenseCRF: logits must have shape"):
        WithCRF(nn.Conv2d(3, 5, 1), crf)(torch.zeros(1, 3, 4, 4))


class Wrong(nn.Module):
    """Gives no tensor."""

    def forward(self, x: Any) -> Any:
        return "logits"


# ---- clusters of features -------------------------------------------------------------------------------


def features(n: int = 2, channels: int = 5) -> tuple[Any, Any]:
    """Features of two kinds of places, along different directions and of any length."""
    draw = torch.Generator().manual_seed(2)
    _, labels = scene(n)
    labels = labels[:, ::2, ::3]
    ways = torch.nn.functional.normalize(torch.randn(2, channels, generator=draw), dim=1)
    long = 0.5 + 3 * torch.rand(labels.shape, generator=draw)
    x = ways[labels] * long[..., None] + 0.02 * torch.randn((*labels.shape, channels), generator=draw)
    return x.permute(0, 3, 1, 2), labels


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("method", ["kmeans", "spectral"])
def test_clusters_are_the_kinds(method: str, together: bool) -> None:
    x, want = features()
    got = cluster_features(x.requires_grad_(), 2, method=method, together=together, n_neighbors=12)
    assert got.dtype == torch.int64 and got.shape == want.shape and not got.requires_grad
    pairs = [(got, want)] if together else list(zip(got, want, strict=True))
    assert all(cv3gpu.rand_index(a.contiguous(), b.contiguous(), adjusted=True) > 0.95 for a, b in pairs)
    assert torch.equal(got, cluster_features(x, 2, method=method, together=together, n_neighbors=12))


def test_clusters_of_lengths_and_sizes() -> None:
    x, _ = features()
    large = cluster_features(x, 2, size=(2 * x.shape[2], 3 * x.shape[3]))
    small = cluster_features(x, 2)
    assert torch.equal(large, small.repeat_interleave(2, 1).repeat_interleave(3, 2))
    odd = functional.interpolate(small[:, None].float(), (7, 29)).long()[:, 0]
    assert torch.equal(cluster_features(x, 2, size=(7, 29)), odd)
    line = torch.tensor([1.0, 1.1, 9.0, 9.1]).reshape(1, 1, 1, 4)
    apart = cluster_features(line, 2, normalize=False)[0, 0]
    assert apart[0] == apart[1] != apart[2] == apart[3]
    assert cluster_features(x.bfloat16(), 2).shape == small.shape
    assert cluster_features(x[:0], 2, size=7).shape == (0, 7, 7)
    assert cluster_features(x[:, :, :1, :1], 1).tolist() == [[[0]], [[0]]]


@pytest.mark.parametrize(
    ("error", "text", "change"),
    [
        (TypeError, "features must be a torch.Tensor, got list", {"features": []}),
        (TypeError, "features must have dtype", {"features": torch.zeros(1, 2, 3, 3).int()}),
        (ValueError, r"features must have shape \[N, C, h, w\]", {"features": torch.zeros(2, 3, 3)}),
        (ValueError, "n_clusters must be at most the number of places, 9, got 10", {"n_clusters": 10}),
        (ValueError, "n_clusters must be from 1", {"n_clusters": 0}),
        (TypeError, "n_clusters must be an integer", {"n_clusters": 2.0}),
        (ValueError, "method must be one of 'kmeans', 'spectral', got 'ward'", {"method": "ward"}),
        (TypeError, "together must be True or False", {"together": 1}),
        (TypeError, "normalize must be True or False", {"normalize": None}),
        (ValueError, "size must be from 1", {"size": 0}),
        (ValueError, "size must be an integer or a pair", {"size": (1, 2, 3)}),
        (ValueError, "n_neighbors must be from 1", {"n_neighbors": 0}),
        (ValueError, "seed must be from 0", {"seed": -1}),
    ],
)
def test_clusters_refuse(error: type[Exception], text: str, change: dict[str, Any]) -> None:
    given = {"features": torch.zeros(1, 2, 3, 3), "n_clusters": 2} | change
    with pytest.raises(error, match=f"cluster_features: {text}"):
        cluster_features(given.pop("features"), given.pop("n_clusters"), **given)


# ---- files of weights -----------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {
    "model": "unet",
    "num_classes": 3,
    "arguments": {"base_channels": 4},
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.2, 0.3],
    "names": ["road", "sky", "tree"],
    "palette": [[1, 2, 3], [4, 5, 6]],
    "size": [16, 24],
}


@pytest.fixture(scope="module")
def arrays() -> Any:
    torch.manual_seed(0)
    return {k: v.numpy() for k, v in models.unet(3, base_channels=4).state_dict().items()}


def test_a_file_comes_back_as_the_network(tmp_path: Any, arrays: Any) -> None:
    _weights.write(tmp_path / "w.safetensors", arrays, CONFIG)
    network, config = postprocess.load_network(tmp_path / "w.safetensors")
    assert config == CONFIG and not network.training
    assert all(np.array_equal(v.numpy(), arrays[k]) for k, v in network.state_dict().items())
    assert not any(x.is_meta for x in (*network.parameters(), *network.buffers()))
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    found = postprocess.predict(network, image, mean=CONFIG["mean"], std=CONFIG["std"])
    with torch.no_grad():
        x = (image / 255 - np.array(CONFIG["mean"])) / np.array(CONFIG["std"])
        want = network(torch.from_numpy(x).permute(2, 0, 1)[None].float())[0]
    np.testing.assert_allclose(found.probabilities, want.softmax(0).numpy(), atol=1e-5)
    assert np.array_equal(found.labels, want.argmax(0).numpy()) and found.refined is None
    small = postprocess.predict(network, image, size=(16, 20), crf={"n_iter": 2})
    assert small.labels.shape == (H, W) and np.array_equal(small.refined, small.probabilities.argmax(0))
    half = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in arrays.items()}
    _weights.write(tmp_path / "half.safetensors", half, CONFIG)
    assert next(postprocess.load_network(tmp_path / "half.safetensors")[0].parameters()).dtype == torch.float32


def test_a_file_of_another_program(tmp_path: Any) -> None:
    import safetensors.numpy

    torch.manual_seed(0)
    network = models.segnet(2)
    state = {k: v.numpy() for k, v in network.state_dict().items()}
    safetensors.numpy.save_file(state, tmp_path / "plain.safetensors")
    found, config = postprocess.load_network(tmp_path / "plain.safetensors", "segnet", ["a", "b"])
    assert config["num_classes"] == 2 and config["names"] == ["a", "b"] and config["mean"] == list(postprocess.MEAN)
    assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("model must be said, one of .*unet", {"model": None}),
        ("model must be said, one of", {"model": "mpn_tracker"}),
        ("model must be said, one of", {"model": "__init__"}),
        ("num_classes must be said, from 1 to 4096, got 0", {"num_classes": 0}),
        ("num_classes must be said, from 1 to 4096, got '3'", {"num_classes": "3"}),
        ("names must be 3 words", {"names": ["a"]}),
        ("names must be 3 words", {"names": 7}),
        ("names must be 3 words", {"names": [1, 2, 3]}),
        ("arguments must be an object, got 4", {"arguments": 4}),
        ("must hold a network and its weights, got .*unexpected keyword", {"arguments": {"depths": 3}}),
        ("must hold a network and its weights, got .*base_channels", {"arguments": {"base_channels": "wide"}}),
        (
            "must hold a network and its weights, got .*base_channels must be from 4",
            {"arguments": {"base_channels": 2**17}},
        ),
        ("must hold a network and its weights, got .*size mismatch", {"arguments": {"base_channels": 2**12}}),
        ("must hold a network and its weights, got .*size mismatch", {"num_classes": 4, "names": None}),
        ("mean must be three numbers, got .*True", {"mean": [True, 1, 1]}),
        ("std must be three numbers above 0", {"std": [0.0, 1.0, 1.0]}),
        ("std must be three numbers above 0", {"std": "abc"}),
        ("size must be two numbers of pixels", {"size": [0, 5]}),
        ("palette must be colours", {"palette": [[1, 2]]}),
        ("palette must be colours", {"palette": [[1, 2, 256]]}),
    ],
)
def test_configs_that_make_no_sense(tmp_path: Any, arrays: Any, text: str, change: dict[str, Any]) -> None:
    path = tmp_path / "w.safetensors"
    _weights.write(path, arrays, CONFIG | change)
    with pytest.raises(DataFormatError, match=f"w.safetensors: {text}"):
        postprocess.load_network(path)


def test_files_that_are_none(tmp_path: Any, arrays: Any) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"not at all")
    with pytest.raises(DataFormatError, match="must be a safetensors file"):
        postprocess.load_network(path)
    some = dict(list(arrays.items())[:-2])
    _weights.write(path, some, CONFIG)
    with pytest.raises(DataFormatError, match=r"must hold a network and its weights, got .*Missing key"):
        postprocess.load_network(path)
    _weights.write(path, arrays, CONFIG)
    with pytest.raises(DataFormatError, match="model must be segnet, got 'unet'"):
        postprocess.load_network(path, "segnet")
    with pytest.raises(DataFormatError, match="names must be 3 words"):
        postprocess.load_network(path, None, ["a", "b"])
