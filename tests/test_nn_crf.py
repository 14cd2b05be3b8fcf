"""The dense CRF and Gaussian filters in torch: registration, gradients, tracing, and the layer."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import library  # noqa: E402
from torch.autograd import gradcheck  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import cv3gpu  # noqa: E402
import cv3gpu.nn  # noqa: E402  (registers the operators)

METHODS = ("lattice", "lattice_fine", "exact")
EACH_ONCE = [("lattice", "potts"), ("lattice_fine", "diagonal"), ("exact", "matrix")]
NORMALIZATIONS = ("symmetric", "before", "after", "none")
PARAMETERS = ("theta_gamma", "compat_smooth", "theta_alpha", "theta_beta", "compat_bilateral")
NAMES = ("unary", "image", *PARAMETERS)

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "crf"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/crf")

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


def leaf(values: Any, device: str, dtype: Any = torch.float64, grad: bool = True) -> Any:
    """A tensor that a gradient may be asked of."""
    return torch.tensor(values, device=device).to(dtype).requires_grad_(grad)


def problem(
    device: str,
    dtype: Any = torch.float64,
    labels: int = 3,
    size: tuple[int, int] = (3, 4),
    lead: tuple[int, ...] = (),
    compat: str = "diagonal",
    single: bool = False,
    grad: bool = True,
) -> dict[str, Any]:
    """All seven tensors of a small CRF in which every one of them matters.

    A lattice's results have kinks where a pixel comes to lie on a face of its simplex. Values are random, so none does;
    with these seeds the nearest is farther than a gradcheck moves anything (1e-6 of widths, 1e-6 of colours).
    """
    rng = np.random.default_rng([7, labels, *size, *lead])
    shapes = {"potts": (), "diagonal": (labels,), "matrix": (labels, labels)}
    values = {
        "unary": rng.uniform(0, 2, (*lead, labels, *size)),
        "image": rng.uniform(0, 60, (*lead, *size, 3)),
        "theta_gamma": 1.3 if single else np.array([1.7, 1.3]),
        "compat_smooth": rng.uniform(0.5, 1.5, shapes[compat]) * (1 if compat == "potts" else -1),
        "theta_alpha": 2.2 if single else np.array([2.5, 2.1]),
        "theta_beta": 21.0 if single else np.array([13.0, 20.0, 30.0]),
        "compat_bilateral": rng.uniform(1, 2, shapes[compat]) * (1 if compat == "potts" else -1),
    }
    return {name: leaf(x, device, dtype, grad) for name, x in values.items()}


def plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same in NumPy."""
    return {name: x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x for name, x in inputs.items()}


def by_position(inputs: dict[str, Any], n_iter: int, method: str, normalization: str = "symmetric") -> tuple[Any, ...]:
    """What the registered operator takes."""
    return *(inputs[name] for name in NAMES), n_iter, method, normalization


def close(got: Any, want: Any, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    """Equal to within the order of sums."""
    got, want = (x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (got, want))
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def points(device: str, dtype: Any = torch.float64, lead: tuple[int, ...] = (), grad: bool = True) -> tuple[Any, Any]:
    """Values and features of a few points."""
    rng = np.random.default_rng([3, *lead])
    values, features = rng.uniform(-1, 1, (*lead, 2, 6)), rng.uniform(0, 3, (*lead, 3, 6))
    return leaf(values, device, dtype, grad), leaf(features, device, dtype, grad)


# ---- registration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "compat"), EACH_ONCE)
def test_opcheck_dense_crf(method: str, compat: str, device: str) -> None:
    op = torch.ops.cv3gpu.dense_crf.default
    inputs = problem(device, torch.float32, lead=(2,), compat=compat, single=compat == "potts")
    library.opcheck(op, by_position(inputs, 2, method))
    if compat == "matrix":
        inputs["unary"] = inputs["unary"].detach().mT.contiguous().mT  # columns first in memory
        inputs["image"] = inputs["image"].detach().to(torch.uint8)
        library.opcheck(op, by_position(inputs, 2, method, "after"))
        inputs |= {"image": None, "theta_beta": torch.tensor(13.0)}
        library.opcheck(op, by_position(inputs, 2, method, "none"))


@pytest.mark.parametrize("needs", [(True,) * 7, (False, True, False, True, False, True, False), (False,) * 7], ids=str)
@pytest.mark.parametrize("method", ["lattice", "exact"])
def test_opcheck_dense_crf_vjp(method: str, needs: tuple[bool, ...], device: str) -> None:
    op = torch.ops.cv3gpu.dense_crf_vjp.default
    inputs = problem(device, torch.float32, compat="matrix", grad=False)
    grad = torch.ones_like(inputs["unary"])
    library.opcheck(op, (grad, *by_position(inputs, 2, method), list(needs)))
    inputs["theta_alpha"] = torch.tensor(3)  # on the CPU, of integers: its gradient is in float64
    inputs["image"] = inputs["image"][..., 0].to(torch.uint8)
    inputs["theta_beta"] = inputs["theta_beta"][0].double()
    library.opcheck(op, (grad, *by_position(inputs, 2, method), list(needs)))


@pytest.mark.parametrize("method", METHODS)
def test_opcheck_gaussian_filter(method: str, device: str) -> None:
    values, features = points(device, torch.float32, (2,))
    library.opcheck(torch.ops.cv3gpu.gaussian_filter.default, (values, features, method, "symmetric"))
    library.opcheck(torch.ops.cv3gpu.gaussian_filter.default, (values.detach(), features.detach()))
    for needs in ([True, True], [False, True], [False, False]):
        args = (torch.ones_like(values), values.detach(), features.detach(), method, "before", needs)
        library.opcheck(torch.ops.cv3gpu.gaussian_filter_vjp.default, args)


# ---- values and gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_dense_crf_is_numpys(method: str, dtype: Any, device: str) -> None:
    inputs = problem(device, dtype, size=(7, 9), lead=(2,))
    tolerance = (1e-12, 1e-13) if dtype == torch.float64 else (1e-4, 1e-5)
    want = cv3gpu.dense_crf(**plain(inputs), n_iter=3, method=method)
    q = cv3gpu.dense_crf(**inputs, n_iter=3, method=method)
    assert q.dtype == dtype and q.device == inputs["unary"].device and q.requires_grad
    close(q, want, *tolerance)
    grad = np.random.default_rng(1).normal(size=want.shape).astype(want.dtype)
    wanted = cv3gpu.dense_crf_vjp(grad, **plain(inputs), n_iter=3, method=method)
    q.backward(torch.from_numpy(grad).to(device))
    called = cv3gpu.dense_crf_vjp(torch.from_numpy(grad).to(device), **inputs, n_iter=3, method=method)
    for name in NAMES:
        scale = float(np.abs(getattr(wanted, name)).max())
        for got in (inputs[name].grad, getattr(called, name)):
            close(got, getattr(wanted, name), tolerance[0], 10 * tolerance[1] * scale)


# Every method with numbers and with several of each, and every normalisation.
CHECKED = [
    *((method, "symmetric", kind) for method in METHODS for kind in ("potts", "diagonal")),
    *(("lattice", normalization, "diagonal") for normalization in NORMALIZATIONS[1:]),
]


@pytest.mark.parametrize(("method", "normalization", "kind"), CHECKED)
def test_dense_crf_derivatives(method: str, normalization: str, kind: str, device: str) -> None:
    inputs = problem(device, labels=2, size=(2, 4), compat=kind, single=kind == "potts")

    def run(*args: Any) -> Any:
        options = {"n_iter": 3, "method": method, "normalization": normalization}
        return cv3gpu.dense_crf(**dict(zip(NAMES, args, strict=True)), **options)

    batched = (method, kind) == ("exact", "diagonal")  # the same gradients, many at a time
    assert gradcheck(run, tuple(inputs.values()), atol=1e-7, rtol=1e-5, check_batched_grad=batched)


@pytest.mark.parametrize("method", METHODS)
def test_derivative_by_a_matrix(method: str, device: str) -> None:
    inputs = problem(device, compat="matrix")
    smooth, bilateral = inputs.pop("compat_smooth"), inputs.pop("compat_bilateral")
    inputs = {name: x.detach() for name, x in inputs.items()}

    def run(smooth: Any, bilateral: Any) -> Any:
        """Moves mu within the symmetric matrices, where the gradient per entry and the symmetrised one agree."""
        both = {"compat_smooth": smooth + smooth.mT, "compat_bilateral": bilateral + bilateral.mT}
        return cv3gpu.dense_crf(**inputs, **both, n_iter=3, method=method)

    assert gradcheck(run, (smooth, bilateral), atol=1e-7, rtol=1e-5)


def test_derivative_by_a_matrix_is_per_entry(device: str) -> None:
    inputs = problem(device, compat="matrix")
    q = cv3gpu.dense_crf(**inputs, n_iter=3, method="exact")
    weights = torch.linspace(0, 1, q.numel(), dtype=q.dtype, device=device).reshape(q.shape)
    (q * weights).sum().backward()
    wanted = cv3gpu.dense_crf_vjp(weights.cpu().numpy(), **plain(inputs), n_iter=3, method="exact")
    for name in ("compat_smooth", "compat_bilateral"):
        got = inputs[name].grad
        close(got, getattr(wanted, name))
        assert (got - got.mT).abs().max() > 1e-4  # of no symmetric matrix


@pytest.mark.parametrize("method", METHODS)
def test_gaussian_filter_derivatives(method: str, device: str) -> None:
    for normalization in NORMALIZATIONS:
        values, features = points(device, lead=(2,) if normalization == "after" else ())
        options = {"method": method, "normalization": normalization}
        close(cv3gpu.gaussian_filter(values, features, **options),
              cv3gpu.gaussian_filter(*(x.detach().cpu().numpy() for x in (values, features)), **options))  # fmt: skip
        assert gradcheck(lambda v, f, o=options: cv3gpu.gaussian_filter(v, f, **o), (values, features), atol=1e-7)
        called = cv3gpu.gaussian_filter_vjp(torch.ones_like(values), values, features, **options)
        loss = cv3gpu.gaussian_filter(values, features, **options).sum()
        for a, b in zip(called, torch.autograd.grad(loss, (values, features)), strict=True):
            close(a, b)


def test_a_grey_image_and_none(device: str) -> None:
    inputs = problem(device, labels=2, single=True, compat="potts")
    grey = inputs.pop("image").detach()[..., 0].requires_grad_()

    def run(image: Any, *args: Any) -> Any:
        others = dict(zip(("unary", *PARAMETERS), args, strict=True))
        return cv3gpu.dense_crf(image=image, **others, n_iter=2)

    assert gradcheck(run, (grey, *inputs.values()), atol=1e-7, rtol=1e-5)
    run(None, *inputs.values()).square().sum().backward()
    for name in ("theta_alpha", "theta_beta", "compat_bilateral"):
        assert inputs[name].grad == 0
    assert inputs["theta_gamma"].grad != 0


class Recorded(TorchDispatchMode):
    """The calls of an operator's vjp: what they were asked for, and what they gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.name().startswith("cv3gpu::") and "_vjp" in func.name():
            self.calls.append((list(args[-1]), [x.numel() for x in out]))
        return out


def test_only_wanted_gradients_are_computed(device: str) -> None:
    everything = problem(device)
    every = torch.autograd.grad(cv3gpu.dense_crf(**everything, n_iter=2).square().sum(), list(everything.values()))
    masks = [m for m in itertools.product([False, True], repeat=7) if sum(m) in (1, 3)]
    for mask in masks[::2]:
        inputs = {n: x.detach().requires_grad_(w) for (n, x), w in zip(everything.items(), mask, strict=True)}
        loss = cv3gpu.dense_crf(**inputs, n_iter=2).square().sum()
        with Recorded() as recorded:
            loss.backward()
        [(asked, given)] = recorded.calls
        assert asked == list(mask)
        assert [n > 0 for n in given] == list(mask)
        for x, wanted, want in zip(inputs.values(), mask, every, strict=True):
            assert (x.grad is not None) == wanted
            if wanted:
                close(x.grad, want)


def test_only_wanted_gradients_of_a_filter(device: str) -> None:
    for mask in ((True, False), (False, True)):
        values, features = (x.detach().requires_grad_(w) for x, w in zip(points(device), mask, strict=True))
        loss = cv3gpu.gaussian_filter(values, features).square().sum()
        with Recorded() as recorded:
            loss.backward()
        assert [asked for asked, _ in recorded.calls] == [list(mask)]
        assert (values.grad is not None, features.grad is not None) == mask


def test_nothing_is_kept_without_a_gradient(device: str) -> None:
    inputs = problem(device)
    want = cv3gpu.dense_crf(**inputs)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            got = cv3gpu.dense_crf(**inputs)
        assert not got.requires_grad
        close(got, want)


def test_vjps_of_a_public_call(device: str) -> None:
    inputs = {**problem(device, grad=False), "theta_alpha": 3, "compat_smooth": 1.5, "theta_gamma": (2, 1.5)}
    grad = torch.ones_like(inputs["unary"]).cumsum(-1)
    needs = (True, False, True, True, True, False, False)
    wanted = cv3gpu.dense_crf_vjp(grad.cpu().numpy(), **plain(inputs), n_iter=2, needs=needs)
    got = cv3gpu.dense_crf_vjp(grad, **inputs, n_iter=2, needs=needs)
    assert type(got) is type(wanted)
    for x, want, wants in zip(got, wanted, needs, strict=True):
        assert (x is not None) == (want is not None) == wants
        if wants:
            close(x, want)
    inputs["image"] = inputs["image"].to(torch.uint8)
    assert cv3gpu.dense_crf_vjp(grad, **inputs, n_iter=2).image is None
    by_values, nothing = cv3gpu.gaussian_filter_vjp(*points(device, grad=False)[:1] * 2, points(device, grad=False)[1],
                                                    needs=(True, False))  # fmt: skip
    assert by_values is not None and nothing is None


def test_there_is_no_second_derivative(device: str) -> None:
    inputs = problem(device)
    by_unary, by_width = torch.autograd.grad(
        cv3gpu.dense_crf(**inputs, n_iter=1).square().sum(), (inputs["unary"], inputs["theta_beta"]), create_graph=True
    )
    for gradient in (by_unary, by_width):
        with pytest.raises(NotImplementedError, match=r"^dense_crf_vjp: no gradient is implemented \(dense_crf has"):
            gradient.sum().backward(retain_graph=True)
    values, features = points(device)
    (gradient,) = torch.autograd.grad(cv3gpu.gaussian_filter(values, features).sum(), values, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"^gaussian_filter_vjp: no gradient is implemented"):
        gradient.sum().backward()


@needs_data
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["astronaut20_L3_potts", "chelsea20_L2_after", "coffee24_L5_matrix"])
def test_gradients_of_real_images(name: str, dtype: Any, device: str) -> None:
    """Float64 gradients of an independent program: mean field over all pairs, and central differences agree with it."""
    with np.load(SHARED / f"grad_tiny_{name}.npz") as data:
        d = dict(data)
    labels = d["unary_fx"].shape[2]
    unary = np.moveaxis(d["unary_fx"] / float(d["unary_scale"]), -1, 0)
    inputs = {
        "unary": leaf(unary.copy(), device, dtype),
        "theta_gamma": leaf(d["sxy_gauss"], device),
        "compat_smooth": leaf(d["compat_gauss"], device),
        "theta_alpha": leaf(d["sxy_bil"], device),
        "theta_beta": leaf(d["srgb_bil"], device),
        "compat_bilateral": leaf(d["compat_bil"], device),
    }
    q = cv3gpu.dense_crf(
        image=torch.from_numpy(d["image"]).to(device),
        **inputs,
        n_iter=int(d["iters"]),
        method="exact",
        normalization=str(d["normalization"]),
    )
    (q * torch.from_numpy(d["loss_weights"].T.reshape(q.shape)).to(q)).sum().backward()
    wanted = [d[f"grad_{key}"] for key in ("unary", "sxy_gauss", "compat_gauss", "sxy_bil", "srgb", "compat_bil")]
    for (argument, x), want in zip(inputs.items(), wanted, strict=True):
        got = x.grad.cpu().double().numpy()
        if argument == "unary":
            got = got.reshape(labels, -1)
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error <= (1e-8 if dtype == torch.float64 else 1e-4), (argument, error)


# ---- the public call ------------------------------------------------------------------------------------


def test_numbers_are_tensors(device: str) -> None:
    """Numbers, sequences, NumPy arrays and tensors say the same."""
    inputs = problem(device, single=True, compat="potts", grad=False)
    arrays = {name: inputs[name] for name in ("unary", "image")}
    numbers = {name: inputs[name].item() for name in PARAMETERS}
    want = cv3gpu.dense_crf(**plain(arrays), **numbers)
    close(cv3gpu.dense_crf(**inputs), want)
    close(cv3gpu.dense_crf(**arrays, **numbers), want)
    close(cv3gpu.dense_crf(**arrays, **{k: np.float64(x) for k, x in numbers.items()}), want)
    close(cv3gpu.dense_crf(**arrays, **{k: np.array(x) for k, x in numbers.items()}, n_iter=np.int64(10)), want)
    counts = {"theta_gamma": 2, "theta_alpha": 2, "theta_beta": 3}
    pairs = {k: (x,) * counts[k] if k in counts else [-x] * 3 for k, x in numbers.items()}
    close(cv3gpu.dense_crf(**arrays, **pairs), want)
    matrices = {k: x if k in counts else (-x * np.eye(3)).tolist() for k, x in numbers.items()}
    close(cv3gpu.dense_crf(**arrays, **matrices), want)
    whole = {
        "theta_gamma": 2,
        "theta_alpha": (3, 4),
        "compat_smooth": 1,
        "compat_bilateral": torch.tensor([-2, -1, -3]),
    }
    close(cv3gpu.dense_crf(**arrays, **whole), cv3gpu.dense_crf(**plain(arrays), **plain(whole)))
    singles = {k: np.array(x, np.float32) for k, x in numbers.items()}
    close(cv3gpu.dense_crf(**arrays, **singles), cv3gpu.dense_crf(**plain(arrays), **singles))
    gradients = cv3gpu.dense_crf_vjp(inputs["unary"], **arrays, **singles)
    assert all(getattr(gradients, name).dtype == torch.float32 for name in PARAMETERS)
    half = torch.tensor([1.5, 2.5], dtype=torch.bfloat16)
    close(cv3gpu.dense_crf(**arrays, theta_gamma=half), cv3gpu.dense_crf(**arrays, theta_gamma=(1.5, 2.5)))


def test_parameters_of_a_module(device: str) -> None:
    inputs = problem(device, grad=False)
    parameter = torch.nn.Parameter(inputs["theta_gamma"].log())
    inputs["theta_gamma"] = parameter.exp()
    inputs["compat_smooth"] = torch.nn.Parameter(inputs["compat_smooth"])
    cv3gpu.dense_crf(**inputs, n_iter=2).square().sum().backward()
    assert parameter.grad.shape == (2,) and (parameter.grad != 0).all()
    assert inputs["compat_smooth"].grad.shape == (3,)


def test_a_parameter_may_live_elsewhere_and_be_of_another_dtype(device: str) -> None:
    inputs = problem(device, torch.float32)
    inputs["theta_beta"] = inputs["theta_beta"].detach().double().cpu().requires_grad_()
    inputs["compat_smooth"] = inputs["compat_smooth"].detach().double().cpu().requires_grad_()
    cv3gpu.dense_crf(**inputs, n_iter=2).square().sum().backward()
    for name in ("theta_beta", "compat_smooth"):
        assert (inputs[name].grad.dtype, inputs[name].grad.device.type) == (torch.float64, "cpu")


@pytest.mark.parametrize("grad", [True, False])
def test_info(grad: bool, device: str) -> None:
    inputs = problem(device, lead=(2,), grad=grad)
    want, wanted = cv3gpu.dense_crf(**plain(inputs), n_iter=3, return_info=True)
    q, info = cv3gpu.dense_crf(**inputs, n_iter=3, return_info=True)
    assert type(info) is type(wanted) and q.requires_grad == grad
    close(q, want)
    for got, other in zip(info, wanted, strict=True):
        assert isinstance(got, np.ndarray)
        close(got, other)
    if grad:
        q.square().sum().backward()
        assert all((x.grad != 0).any() for x in inputs.values())


def test_an_empty_batch(device: str) -> None:
    inputs = problem(device)
    for name in ("unary", "image"):
        inputs[name] = inputs[name].detach()[None][:0].requires_grad_()
    q = cv3gpu.dense_crf(**inputs)
    assert q.shape == (0, 3, 3, 4)
    q.sum().backward()
    assert inputs["unary"].grad.shape == q.shape
    assert not inputs["theta_gamma"].grad.any() and not inputs["compat_smooth"].grad.any()


# ---- transforms -----------------------------------------------------------------------------------------

DIMS: list[dict[str, int]] = [
    {"unary": 0, "image": 0},
    {"unary": 1},
    {"image": 2},
    {"theta_gamma": 0},
    {"unary": 0, "compat_bilateral": 1},
    {"image": 0, "theta_beta": 1, "theta_alpha": 0},
]


def stacked(x: Any, dim: int | None, n: int) -> Any:
    """So many samples of a tensor that differ, along a dimension."""
    return x if dim is None else torch.stack([x * (1 + 0.1 * i) for i in range(n)], dim)


@pytest.mark.parametrize("dims", DIMS, ids=str)
def test_vmap_and_the_gradients_of_samples(dims: dict[str, int], device: str) -> None:
    inputs = {n: stacked(x, dims.get(n), 3) for n, x in problem(device, labels=2, grad=False).items()}
    in_dims = tuple(dims.get(name) for name in NAMES)

    def run(*args: Any) -> Any:
        return cv3gpu.dense_crf(**dict(zip(NAMES, args, strict=True)), n_iter=2, method="exact")

    def loss(*args: Any) -> Any:
        q = run(*args)
        return (q * torch.arange(q.numel(), device=q.device).reshape(q.shape)).sum()

    def looped(function: Callable[..., Any]) -> Any:
        rows = [
            [x if dims.get(name) is None else x.select(dims[name], i) for name, x in inputs.items()] for i in range(3)
        ]
        return [function(*row) for row in rows]

    args = tuple(inputs.values())
    close(torch.vmap(run, in_dims)(*args), torch.stack(looped(run)))
    every = torch.func.grad(loss, tuple(range(7)))
    for got, want in zip(torch.vmap(every, in_dims)(*args), zip(*looped(every), strict=True), strict=True):
        close(got, torch.stack(want), 1e-10, 1e-11)
    some = torch.func.grad(loss, (0, 1))  # without gradients of parameters, samples go together
    for got, want in zip(torch.vmap(some, in_dims)(*args), zip(*looped(some), strict=True), strict=True):
        close(got, torch.stack(want), 1e-10, 1e-11)


def test_vmap_inside_a_gradient(device: str) -> None:
    """The gradient of a sum over samples is the sum of theirs, and that of one call with a batch."""
    inputs = problem(device, labels=2, lead=(3,), grad=False)

    def mapped(width: Any) -> Any:
        rest = {k: x for k, x in inputs.items() if k not in ("unary", "image", "theta_gamma")}
        one = lambda u, i: cv3gpu.dense_crf(u, i, theta_gamma=width, **rest, n_iter=2)  # noqa: E731
        return torch.vmap(one)(inputs["unary"], inputs["image"]).square().sum()

    def batched(width: Any) -> Any:
        return cv3gpu.dense_crf(**{**inputs, "theta_gamma": width}, n_iter=2).square().sum()

    width = inputs["theta_gamma"]
    close(torch.func.grad(mapped)(width), torch.func.grad(batched)(width), 1e-10)
    leafed = width.clone().requires_grad_()
    batched(leafed).backward()
    close(torch.func.grad(batched)(width), leafed.grad)


def test_vmap_of_nothing(device: str) -> None:
    inputs = problem(device, grad=False)
    run = lambda u, w: cv3gpu.dense_crf(u, inputs["image"], theta_gamma=w)  # noqa: E731
    none = inputs["unary"][None][:0]
    assert torch.vmap(run, (0, None))(none, inputs["theta_gamma"]).shape == none.shape
    assert torch.vmap(run)(none, inputs["theta_gamma"][None][:0]).shape == none.shape


def test_vmap_of_a_uint8_image(device: str) -> None:
    inputs = problem(device, lead=(2,), grad=False)
    unary, image = inputs["unary"], inputs["image"].to(torch.uint8)
    derivative = torch.func.grad(lambda u, i: cv3gpu.dense_crf(u, i, n_iter=2).square().sum())
    close(torch.vmap(derivative)(unary, image), torch.stack([derivative(*x) for x in zip(unary, image, strict=True)]))


@pytest.mark.parametrize("dims", [(0, 0), (1, None), (None, 0)])
def test_vmap_of_gaussian_filter_and_its_gradients(dims: tuple[int | None, ...], device: str) -> None:
    args = [stacked(x, d, 3) for x, d in zip(points(device, grad=False), dims, strict=True)]
    rows = [[t if d is None else t.select(d, i) for t, d in zip(args, dims, strict=True)] for i in range(3)]

    def loss(values: Any, features: Any) -> Any:
        return cv3gpu.gaussian_filter(values, features).square().sum()

    for function in (cv3gpu.gaussian_filter, torch.func.grad(loss, 0), torch.func.grad(loss, 1)):
        close(torch.vmap(function, dims)(*args), torch.stack([function(*row) for row in rows]), 1e-11, 1e-12)


# ---- autocast -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(dtype: Any, device: str) -> None:
    inputs = {name: x.detach().to(dtype).requires_grad_() for name, x in problem(device, torch.float32).items()}
    with torch.autocast(device, dtype):
        q = cv3gpu.dense_crf(**inputs, n_iter=2)
        told, info = cv3gpu.dense_crf(**inputs, n_iter=2, return_info=True)
        mixed = cv3gpu.dense_crf(inputs["unary"], inputs["image"].detach().to(torch.uint8))
        doubles = cv3gpu.dense_crf(**{name: x.double() for name, x in inputs.items()}, n_iter=2)
    assert (q.dtype, told.dtype, mixed.dtype, doubles.dtype) == (torch.float32,) * 3 + (torch.float64,)
    assert info.change.shape == (2,)
    want = cv3gpu.dense_crf(**{name: x.float() for name, x in inputs.items()}, n_iter=2)
    assert torch.equal(q, want) and torch.equal(told, want)
    q.square().sum().backward()
    assert all(x.grad.dtype == dtype and (x.grad != 0).any() for x in inputs.values())
    values, features = points(device, torch.float32)
    with torch.autocast(device, dtype):
        assert cv3gpu.gaussian_filter(values.to(dtype), features).dtype == torch.float32


def test_16_bits_are_refused_without_autocast(device: str) -> None:
    inputs = problem(device, torch.float32)
    with pytest.raises(TypeError, match=r"^dense_crf: unary must have dtype float32 or float64, got float16"):
        cv3gpu.dense_crf(**{**inputs, "unary": inputs["unary"].half()})


# ---- compilers ------------------------------------------------------------------------------------------


def step(unary: Any, image: Any, width: Any, compat: Any) -> Any:
    """Operators between others."""
    q = cv3gpu.dense_crf(2 * unary, image, theta_gamma=width.exp(), compat_smooth=compat, theta_beta=(13, 20.0, 30))
    smooth = cv3gpu.gaussian_filter(q.flatten(-2), image.movedim(-1, -3).flatten(-2) / 20, method="exact")
    return (q.flatten(-2) * smooth).sum()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend: str, device: str) -> None:
    inputs = problem(device)
    args = [inputs[name] for name in ("unary", "image", "theta_gamma", "compat_smooth")]
    wanted = step(*args)
    got = torch.compile(step, fullgraph=True, backend=backend)(*args)
    close(got, wanted)
    for a, b in zip(torch.autograd.grad(got, args), torch.autograd.grad(wanted, args), strict=True):
        close(a, b, 1e-10)


def test_compile_with_dynamic_shapes(device: str) -> None:
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    counters = torch._dynamo.utils.counters
    counters.clear()
    for size, lead in (((4, 5), (6,)), ((5, 7), (4,)), ((6, 4), (5,))):
        inputs = problem(device, size=size, lead=lead)  # first all differ: torch takes equal sizes for one
        args = [inputs[name] for name in ("unary", "image", "theta_gamma", "compat_smooth")]
        got, want = compiled(*args), step(*args)
        close(got, want, 1e-11)
        for a, b in zip(torch.autograd.grad(got, args), torch.autograd.grad(want, args), strict=True):
            close(a, b, 1e-9)
    assert counters["stats"]["unique_graphs"] == 1


def test_compile_under_autocast_and_with_changing_numbers(device: str) -> None:
    inputs = problem(device, torch.float32)

    def run(unary: Any, width: float) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return cv3gpu.dense_crf(unary.bfloat16(), inputs["image"], theta_alpha=width, n_iter=2)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for width in (20.0, 30.0, 40.0):
        assert torch.equal(compiled(inputs["unary"], width), run(inputs["unary"], width))


def test_export(device: str) -> None:
    net = torch.nn.Sequential(cv3gpu.nn.Conv2d(3, 3, 1), cv3gpu.nn.DenseCRF(3)).to(device)
    x = problem(device, torch.float32, lead=(2,), grad=False)["image"].movedim(-1, -3)
    program = torch.export.export(net, (x,))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"cv3gpu.conv2d.default", "cv3gpu.dense_crf.default"} <= called
    close(program.module()(x), net(x), 1e-5, 1e-6)


# ---- errors ---------------------------------------------------------------------------------------------

BAD: dict[str, dict[str, Any]] = {
    "unary is 2-D": {"unary": np.zeros((3, 4))},
    "unary of integers": {"unary": np.zeros((3, 3, 4), np.int64)},
    "unary of 16 bits": {"unary": np.zeros((3, 3, 4), np.float16)},
    "no labels": {"unary": np.zeros((0, 3, 4))},
    "another size": {"image": np.zeros((4, 3, 3))},
    "channels first": {"image": np.zeros((3, 3, 4)), "theta_beta": (1.0, 2.0, 3.0)},
    "another batch": {"image": np.zeros((2, 3, 4, 3))},
    "seven channels": {"image": np.zeros((3, 4, 7))},
    "image of int64": {"image": np.zeros((3, 4, 3), np.int64)},
    "image of 16 bits": {"image": np.zeros((3, 4, 3), np.float16)},
    "width of zero": {"theta_gamma": 0},
    "negative width": {"theta_alpha": -1},
    "negative width in a pair": {"theta_alpha": (3, -1)},
    "width is not a number": {"theta_gamma": float("nan")},
    "infinite width": {"theta_beta": float("inf")},
    "width of True": {"theta_gamma": True},
    "width in words": {"theta_gamma": "3"},
    "no width": {"theta_alpha": None},
    "three widths for two": {"theta_gamma": (1, 2, 3)},
    "two colours of three": {"theta_beta": [13, 20.0]},
    "nested widths": {"theta_gamma": ((1.0,), (2.0,))},
    "an array of three widths": {"theta_alpha": np.array([1.0, 2.0, 3.0])},
    "an array with a negative width": {"theta_alpha": np.array([1.0, -2.0])},
    "compatibility of True": {"compat_smooth": True},
    "compatibility in words": {"compat_smooth": "potts"},
    "no compatibility": {"compat_bilateral": None},
    "compatibility of five labels": {"compat_smooth": np.zeros(5)},
    "a list for two labels": {"compat_smooth": [1, 2]},
    "a matrix that is not square": {"compat_bilateral": np.zeros((3, 2))},
    "a ragged matrix": {"compat_bilateral": [[1.0, 2.0, 3.0], [1.0], [2.0]]},
    "infinite compatibility": {"compat_smooth": float("inf")},
    "a diagonal with NaN": {"compat_bilateral": np.array([0.0, np.nan, 1.0])},
    "compatibility of booleans": {"compat_smooth": np.zeros(3, bool)},
    "negative n_iter": {"n_iter": -1},
    "n_iter of a float": {"n_iter": 2.0},
    "n_iter of True": {"n_iter": True},
    "method": {"method": "bilateral"},
    "method is no word": {"method": 1},
    "normalization": {"normalization": "mean"},
    "no normalization": {"normalization": None},
    "return_info of 1": {"return_info": 1},
}


def as_tensors(arguments: dict[str, Any], device: str, all_of_them: bool = True) -> dict[str, Any]:
    """Arrays as tensors."""
    arrays = ("grad", "unary", "image", "values", "features")
    return {
        k: torch.from_numpy(np.array(x)).to(device) if isinstance(x, np.ndarray) and (all_of_them or k in arrays) else x
        for k, x in arguments.items()
    }


@pytest.mark.parametrize("name", list(BAD))
def test_errors_are_those_of_numpy(name: str, device: str) -> None:
    rng = np.random.default_rng(0)
    arguments = {"unary": rng.uniform(size=(3, 3, 4)), "image": rng.uniform(size=(3, 4, 3)), **BAD[name]}
    with pytest.raises((TypeError, ValueError)) as wanted:
        cv3gpu.dense_crf(**arguments)
    for all_of_them in (False, True):
        tensors = as_tensors(arguments, device, all_of_them)
        for grad in (False, True):
            if grad and tensors["unary"].is_floating_point():
                tensors["unary"].requires_grad_()
            with pytest.raises((TypeError, ValueError)) as got:
                cv3gpu.dense_crf(**tensors)
            assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))
    if "return_info" not in arguments:
        arguments["grad"] = np.zeros(arguments["unary"].shape)
        with pytest.raises((TypeError, ValueError)) as wanted:
            cv3gpu.dense_crf_vjp(**arguments)
        with pytest.raises((TypeError, ValueError)) as got:
            cv3gpu.dense_crf_vjp(**as_tensors(arguments, device))
        assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))


BAD_OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gradient of another shape": ("dense_crf_vjp", {"grad": np.zeros((3, 4, 3))}),
    "gradient of another dtype": ("dense_crf_vjp", {"grad": np.zeros((3, 3, 4), np.float32)}),
    "six needs": ("dense_crf_vjp", {"needs": (True,) * 6}),
    "values are 1-D": ("gaussian_filter", {"values": np.zeros(5)}),
    "features of other points": ("gaussian_filter", {"features": np.zeros((2, 4))}),
    "features of another dtype": ("gaussian_filter", {"features": np.zeros((2, 5), np.float32)}),
    "nine features": ("gaussian_filter", {"features": np.zeros((9, 5))}),
    "method of a filter": ("gaussian_filter", {"method": "kd-tree"}),
    "normalization of a filter": ("gaussian_filter", {"normalization": 3}),
    "gradient of a filter": ("gaussian_filter_vjp", {"grad": np.zeros((5, 3))}),
    "one need": ("gaussian_filter_vjp", {"needs": (True,)}),
    "method of its gradient": ("gaussian_filter_vjp", {"method": None}),
}


@pytest.mark.parametrize("name", list(BAD_OTHERS))
def test_errors_of_the_others_are_those_of_numpy(name: str, device: str) -> None:
    op, bad = BAD_OTHERS[name]
    if "crf" in op:
        arguments: dict[str, Any] = {"grad": np.zeros((3, 3, 4)), "unary": np.zeros((3, 3, 4))}
    else:
        arguments = {"values": np.zeros((3, 5)), "features": np.zeros((2, 5))}
        arguments |= {"grad": np.zeros((3, 5))} if op.endswith("vjp") else {}
    arguments |= bad
    kinds = (TypeError, ValueError, IndexError)
    with pytest.raises(kinds) as wanted:
        getattr(cv3gpu, op)(**arguments)
    with pytest.raises(kinds) as got:
        getattr(cv3gpu, op)(**as_tensors(arguments, device))
    assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))


def test_the_registered_operator_speaks_for_itself(device: str) -> None:
    inputs = problem(device)
    with pytest.raises(ValueError, match=r"^dense_crf: theta_beta must be a number or one for each of the 3 channels"):
        torch.ops.cv3gpu.dense_crf(*by_position({**inputs, "theta_beta": inputs["theta_gamma"]}, 2, "exact"))
    with pytest.raises(ValueError, match=r"^dense_crf: method must be one of"):
        torch.ops.cv3gpu.dense_crf(*by_position(inputs, 2, "quick"))
    with pytest.raises(TypeError, match=r"unary is torch on .*image is numpy on cpu"):
        cv3gpu.dense_crf(inputs["unary"], inputs["image"].detach().cpu().numpy())


@pytest.mark.parametrize("name", ["unary is 2-D", "no labels", "another size", "image of int64", "seven channels"])
def test_fakes_refuse_what_operators_refuse(name: str) -> None:
    arguments = {"unary": np.zeros((3, 3, 4)), "image": np.zeros((3, 4, 3)), **BAD[name]}
    with pytest.raises((TypeError, ValueError)) as wanted:
        cv3gpu.dense_crf(**arguments)
    with torch._subclasses.FakeTensorMode(), pytest.raises((TypeError, ValueError)) as got:
        cv3gpu.dense_crf(**{k: torch.zeros(x.shape, dtype=getattr(torch, x.dtype.name)) for k, x in arguments.items()})
    assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))


# ---- the layer ------------------------------------------------------------------------------------------

WIDTHS = ("log_theta_gamma", "log_theta_alpha", "log_theta_beta")


def toy(device: str, dtype: Any = torch.float32) -> tuple[Any, Any, Any]:
    """Noisy logits, an image of two areas, and which is which."""
    rng = np.random.default_rng(2)
    target = torch.zeros((2, 8, 10), dtype=torch.int64, device=device)
    target[0, :, 5:] = target[1, 3:] = 1
    image = (
        60.0 + 100 * target[:, None].expand(-1, 3, -1, -1) + leaf(rng.normal(0, 8, (2, 3, 8, 10)), device, grad=False)
    )
    noise = leaf(rng.normal(0, 1.2, (2, 2, 8, 10)), device, grad=False)
    logits = functional.one_hot(target, 2).movedim(-1, 1) + noise
    return logits.to(dtype), image.to(dtype), target


@pytest.mark.parametrize(("method", "compatibility"), EACH_ONCE)
def test_layer_is_the_operator(method: str, compatibility: str, device: str) -> None:
    logits, image, _ = toy(device, torch.float64)
    options = {"n_iter": 3, "method": method, "normalization": "after"}
    widths = {"theta_gamma": (1.5, 2), "theta_alpha": 9.0, "theta_beta": (10, 20, 30)}
    layer = cv3gpu.nn.DenseCRF(2, **widths, **options, compatibility=compatibility, dtype=torch.float64, device=device)
    unary = -torch.log_softmax(logits, 1)
    want = cv3gpu.dense_crf(unary, image.movedim(1, -1), **widths, **options)
    close(layer(logits, image).exp(), want, 1e-9)
    layer.output = "probabilities"
    close(layer(logits, image), want, 1e-9)
    close(layer(logits[0], image[0]), want[0], 1e-9)
    close(layer(logits, image.to(torch.uint8)), layer(logits, image.to(torch.uint8).double()))
    alone = cv3gpu.dense_crf(unary, theta_gamma=(1.5, 2), **options)
    close(layer(logits), alone, 1e-9)


@pytest.mark.parametrize("compatibility", ["potts", "diagonal", "matrix"])
def test_layer_learns(compatibility: str, device: str) -> None:
    logits, image, target = toy(device)
    torch.manual_seed(0)
    layer = cv3gpu.nn.DenseCRF(
        2,
        compatibility=compatibility,
        learn=("compat", "theta"),
        theta_gamma=2.0,
        theta_alpha=(5.0, 6.0),
        theta_beta=(30.0, 40.0, 50.0),
        compat_smooth=0.3,
        compat_bilateral=0.3,
        device=device,
    )
    net = torch.nn.Conv2d(2, 2, 1, device=device)  # what the logits come from
    torch.nn.init.dirac_(net.weight)
    parameters = [*net.parameters(), *layer.parameters()]
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.6)
    losses = []
    for _ in range(15):
        loss = functional.cross_entropy(layer(net(logits), image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert all((p != b).any() and p.isfinite().all() for p, b in zip(parameters, before, strict=True))
    if compatibility == "matrix":
        assert torch.equal(layer.compat_smooth, layer.compat_smooth.mT)


def test_layer_derivatives(device: str) -> None:
    logits, image, _ = (x[:, ..., :3, :4] for x in toy(device, torch.float64))
    layer = cv3gpu.nn.DenseCRF(2, compatibility="matrix", learn=("compat", "theta"), theta_alpha=4.0, theta_beta=30.0,
                               compat_smooth=1.0, compat_bilateral=1.0, n_iter=2, dtype=torch.float64, device=device)  # fmt: skip
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(logits: Any, image: Any, *values: Any) -> Any:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (logits, image))

    inputs = (logits.requires_grad_(), image.requires_grad_(), *values)
    assert gradcheck(run, inputs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("learn", "learned"),
    [
        ((), []),
        ("compat", ["compat_smooth", "compat_bilateral"]),
        (("compat", "theta"), ["compat_smooth", "compat_bilateral", *sorted(WIDTHS)]),
        (("theta_beta", "compat_smooth"), ["compat_smooth", "log_theta_beta"]),
    ],
    ids=str,
)
def test_what_is_learned(learn: Any, learned: list[str], device: str) -> None:
    layer = cv3gpu.nn.DenseCRF(2, learn=learn, device=device)
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == set(learned)
    logits, image, target = toy(device)
    with Recorded() as recorded:
        functional.cross_entropy(layer(logits.requires_grad_(), image), target).backward()
    asked = dict(zip(NAMES, recorded.calls[0][0], strict=True))
    assert {name for name, want in asked.items() if want} == {"unary", *(n.removeprefix("log_") for n in learned)}
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == set(learned)


def test_layer_is_saved_and_copied(device: str) -> None:
    logits, image, _ = toy(device)
    options = {"compatibility": "matrix", "theta_beta": (10.0, 20.0, 30.0)}
    layer = cv3gpu.nn.DenseCRF(2, **options, theta_alpha=7.0, compat_smooth=[[-1, 0.5], [0.5, -2]], device=device)
    assert set(layer.state_dict()) == {"compat_smooth", "compat_bilateral", *WIDTHS}
    other = cv3gpu.nn.DenseCRF(2, **options, device=device)
    assert not torch.equal(other(logits, image), layer(logits, image))
    other.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(other(logits, image), layer(logits, image))
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(logits, image), layer(logits, image))
    with torch.no_grad():
        copied.compat_smooth.mul_(2)
    assert not torch.equal(copied(logits, image), layer(logits, image))
    with pytest.raises(RuntimeError, match=r"size mismatch for compat_smooth"):
        cv3gpu.nn.DenseCRF(2).load_state_dict(layer.state_dict())
    wide = copy.deepcopy(layer).double()
    assert wide(logits.double(), image.double()).dtype == torch.float64


def test_layer_says_what_it_is() -> None:
    text = repr(cv3gpu.nn.DenseCRF(21, n_iter=3, learn="theta"))
    assert text == (
        "DenseCRF(21, compatibility='potts', learn=('theta',), n_iter=3, method='lattice', normalization='symmetric', "
        "output='log_probabilities')"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layer_with_16_bits(dtype: Any, device: str) -> None:
    logits, image, target = toy(device)
    layer = cv3gpu.nn.DenseCRF(2, learn=("compat", "theta"), device=device)
    low = logits.to(dtype).requires_grad_()
    want = layer(low.float(), image)
    with torch.autocast(device, dtype):
        out = layer(low, image)
        loss = functional.cross_entropy(out, target)
    assert out.dtype == torch.float32 and torch.equal(out, want)
    assert torch.equal(layer(low, image), want)
    loss.backward()
    assert low.grad.dtype == dtype and all(p.grad.dtype == torch.float32 for p in layer.parameters())
    out = copy.deepcopy(layer).to(dtype)(low, image.to(dtype))  # all of it in 16 bits
    assert out.dtype == torch.float32 and out.isfinite().all()


def test_layer_is_finite_where_it_is_sure(device: str) -> None:
    """A probability that vanishes in float32 has a finite logarithm, and no gradient that is not a number."""
    logits, image, target = toy(device)
    logits = (1000 * logits).requires_grad_()
    layer = cv3gpu.nn.DenseCRF(2, learn=("compat", "theta"), device=device)
    loss = functional.cross_entropy(layer(logits, image), target)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all() and all(p.grad.isfinite().all() for p in layer.parameters())


def test_layer_compiles(device: str) -> None:
    logits, image, target = toy(device)
    layer = cv3gpu.nn.DenseCRF(2, compatibility="matrix", learn=("compat", "theta"), device=device)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    for x in (layer, compiled):
        functional.cross_entropy(x(logits, image), target).backward()
    for a, b in zip(layer.parameters(), compiled.parameters(), strict=True):
        close(a.grad, b.grad, 1e-4, 1e-7)


BAD_LAYERS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no classes": ({"num_classes": 0}, ValueError, "num_classes must be from 1 to 1024, got 0"),
    "classes of a float": ({"num_classes": 2.0}, TypeError, "num_classes must be an integer"),
    "negative width": ({"theta_gamma": -3.0}, ValueError, "theta_gamma must be a positive number or a pair"),
    "three widths": ({"theta_alpha": (1, 2, 3)}, ValueError, "theta_alpha must be a positive number or a pair"),
    "infinite width": ({"theta_beta": float("inf")}, ValueError, "theta_beta must be finite"),
    "width in words": ({"theta_beta": "wide"}, TypeError, "theta_beta must be a positive number or one for each"),
    "another diagonal": (
        {"compat_smooth": [1.0, 2.0, 3.0], "compatibility": "diagonal"},
        ValueError,
        r"compat_smooth must be a number or have shape \[2\], got \(3,\)",
    ),
    "a diagonal for Potts": ({"compat_smooth": [1.0, 2.0]}, ValueError, r"compat_smooth must be a number, got \(2,\)"),
    "compatibility": ({"compatibility": "full"}, ValueError, "compatibility must be one of 'potts'"),
    "what is learned": ({"learn": ("weights",)}, ValueError, "learn must be one of 'compat', 'theta'"),
    "iterations": ({"n_iter": -1}, ValueError, "n_iter must be from 0"),
    "method": ({"method": "fast"}, ValueError, "method must be one of"),
    "normalization": ({"normalization": "mean"}, ValueError, "normalization must be one of"),
    "output": ({"output": "labels"}, ValueError, "output must be one of 'log_probabilities'"),
}


@pytest.mark.parametrize("name", list(BAD_LAYERS))
def test_layer_refuses(name: str) -> None:
    options, kind, text = BAD_LAYERS[name]
    with pytest.raises(kind, match=f"^DenseCRF: {text}"):
        cv3gpu.nn.DenseCRF(**{"num_classes": 2, **options})


@pytest.mark.parametrize(
    ("logits", "image", "text"),
    [
        (
            (2, 2, 4, 5),
            (2, 3, 8, 10),
            r"image must have shape \[2, C, 4, 5\], got \(2, 3, 8, 10\); it must have the logits'",
        ),
        ((2, 2, 4, 5), (2, 4, 5, 3), r"image must have shape \[2, C, 4, 5\], got .*channels first"),
        ((2, 2, 4, 5), (3, 4, 5), r"image must have shape \[2, C, 4, 5\]"),
        ((2, 3, 4, 5), (2, 3, 4, 5), r"logits must have shape \[2, 2, 4, 5\], got \(2, 3, 4, 5\)"),
        ((4, 5), None, r"logits must have shape \[..., 2, H, W\], got \(4, 5\)"),
    ],
    ids=str,
)
def test_layer_refuses_inputs(logits: Any, image: Any, text: str, device: str) -> None:
    layer = cv3gpu.nn.DenseCRF(2, device=device)
    tensors = [None if shape is None else torch.zeros(shape, device=device) for shape in (logits, image)]
    with pytest.raises(ValueError, match=f"^DenseCRF: {text}"):
        layer(*tensors)
