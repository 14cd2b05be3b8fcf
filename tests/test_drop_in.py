"""Putting operators into a model that is there: the same results, nothing else changed, and all of it undone."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

import cv3gpu.nn  # noqa: E402
from cv3gpu.nn import drop_in, drop_out, layers  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


class Net(nn.Module):
    """A little of everything: an encoder with indices, a separable part, and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.separable = nn.Sequential(
            OrderedDict(
                depthwise=nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False),
                mid_norm=nn.BatchNorm2d(8),
                mid_relu=nn.ReLU6(inplace=True),
                pointwise=nn.Conv2d(8, 8, 1),
                norm=nn.BatchNorm2d(8),
                relu=nn.ReLU(inplace=True),
                last=nn.Conv2d(8, 8, 3, padding="same", groups=2),
            )
        )
        self.unpool = nn.MaxUnpool2d(2)
        self.small = nn.MaxPool2d(3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.resize = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Conv2d(14, 4, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y, where = self.pool(x)
        y = self.separable(y)
        wide = self.unpool(y, where)
        return self.head(torch.cat([self.up(y), self.resize(self.small(wide))], 1))


NAMES = ["stem", "pool", "separable", "separable.depthwise", "separable.pointwise", "separable.last", "unpool", "small"]
NAMES += ["up", "resize", "head"]


def net(seed: int = 0) -> Any:
    """A net with batch norms that are not the identity."""
    torch.manual_seed(seed)
    model = Net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for x in (module.weight, module.running_var):
                nn.init.uniform_(x, 0.5, 2)
            for x in (module.bias, module.running_mean):
                nn.init.uniform_(x, -0.3, 0.3)
    return model.eval()


def image(n: int = 2, size: tuple[int, int] = (16, 20)) -> Any:
    return torch.rand((n, 3, *size), generator=torch.Generator().manual_seed(5))


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def states(model: Any) -> Any:
    """All that the instances hold, by name."""
    return {name: dict(module.__dict__) for name, module in model.named_modules()}


# ---- the same results -----------------------------------------------------------------------------------


def test_results_and_what_is_kept() -> None:
    model, x = net(), image()
    want, before, kept = model(x), states(model), model.state_dict(keep_vars=True)
    modules, text = dict(model.named_modules()), repr(model)
    report = drop_in(model)
    assert [row.name for row in report.replaced] == NAMES
    assert report.other == {"BatchNorm2d": 2, "ReLU": 1, "ReLU6": 1} and not report.skipped
    assert all(
        type(m).__module__ == "cv3gpu.nn.surgery" for name, m in modules.items() if name in NAMES if not m._modules
    )
    close(model(x), want)
    for name, module in model.named_modules():
        assert module is modules[name]  # whoever holds it still does
        assert module.__dict__.keys() <= before[name].keys() | {"_looked_at", "_found_diagonal"}
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(kept) and all(after[name] is kept[name] for name in kept)
    assert isinstance(model.stem, nn.Conv2d) and isinstance(model.separable, nn.Sequential)
    assert repr(model) == text
    assert report.undo() == NAMES and report.undo() == []
    assert states(model) == before and torch.equal(model(x), want)
    assert {type(m).__module__.partition(".")[0] for m in model.modules()} == {"torch", __name__.partition(".")[0]}


def test_training_reaches_the_same_parameters() -> None:
    model, x = net().train(), image()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)  # made before the swap
    drop_in(model)
    for _ in range(2):
        for each in (model, twin):
            each.zero_grad()
            each(x).square().mean().backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=2e-3, atol=1e-5)
        optimizer.step()
        with torch.no_grad():
            for q in twin.parameters():
                q -= 0.05 * q.grad
    close(model.separable.norm.running_mean, twin.separable.norm.running_mean)
    close(model.eval()(x), twin.eval()(x))


def test_gradients_through_folded_norms() -> None:
    model, x = net(), image().requires_grad_()
    wanted = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    with drop_in(model):
        found = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=1e-3)


def test_operators_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = net(), []
    drop_in(model)

    class Log(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    with torch.no_grad(), Log():
        model(image())
    ours = {name.split(".")[1] for name in seen if name.startswith("cv3gpu")}
    assert ours == {"conv2d", "separable_conv2d", "conv_transpose2d", "interpolate", "max_pool2d", "max_unpool2d"}
    assert not any("aten.conv" in name or "batch_norm" in name for name in seen)


# ---- what others paid for -------------------------------------------------------------------------------


def test_other_models_and_classes_are_not_touched() -> None:
    watched = (nn.Conv2d, nn.ConvTranspose2d, nn.Upsample, nn.MaxPool2d, nn.MaxUnpool2d, nn.Sequential)
    before, other = [dict(vars(kind)) for kind in watched], net(1)
    drop_in(net())
    assert before == [dict(vars(kind)) for kind in watched]
    assert type(other.stem) is nn.Conv2d and type(Net().stem) is nn.Conv2d and type(other.separable) is nn.Sequential


def test_import_changes_nothing() -> None:
    code = "from torch import nn; a = dict(vars(nn.Conv2d)); import cv3gpu.nn; cv3gpu.nn.drop_in; assert a == vars(nn.Conv2d)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_attributes_that_others_set_stay() -> None:
    model = net()
    model.stem.tag, model.extra = "theirs", [model.stem]
    drop_in(model)
    assert model.stem.tag == "theirs" and model.extra[0] is model.stem
    assert model.stem.kernel_size == (3, 3) and model.stem.extra_repr().endswith("padding_mode=reflect")


def test_twice_and_nested_blocks() -> None:
    model, x = net(), image()
    want = model(x)
    first = drop_in(model)
    kinds = [type(m) for m in model.modules()]
    second = drop_in(model)
    assert not second.replaced and {row.why for row in second.skipped} == {"is one of cv3gpu already"}
    assert kinds == [type(m) for m in model.modules()]
    with drop_in(model):
        pass  # had nothing to do, and so takes nothing out
    assert kinds == [type(m) for m in model.modules()]
    close(model(x), want)
    assert first.undo() == NAMES


def test_a_block_undoes_itself_after_an_error() -> None:
    model = net()
    with pytest.raises(RuntimeError, match="inside"), drop_in(model) as report:
        assert type(model.stem) is not nn.Conv2d and report.replaced
        raise RuntimeError("inside")
    assert type(model.stem) is nn.Conv2d and type(model.separable) is nn.Sequential


def test_layers_of_ours_stay_ours() -> None:
    model = nn.Sequential(layers.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), layers.MaxPool2d(2))
    report = drop_in(model)
    assert [row.name for row in report.replaced] == ["1"] and [row.name for row in report.skipped] == ["0", "2"]
    assert drop_out(model) == ["1"]
    assert [type(m) for m in model] == [layers.Conv2d, nn.Conv2d, layers.MaxPool2d]


# ---- copies, files, compilers ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies(how: str) -> None:
    model, x = net(), image()
    drop_in(model)
    want = model(x)
    if how == "deepcopy":
        again = copy.deepcopy(model)
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(model))
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
    assert all(p is not q for p, q in zip(again.parameters(), model.parameters(), strict=True))
    assert torch.equal(again(x), want)
    assert drop_out(again) == NAMES and type(again.separable) is nn.Sequential
    close(again(x), want)


def test_state_dicts_go_both_ways() -> None:
    one, other, x = net(0), net(1), image()
    drop_in(one)
    one.load_state_dict(other.state_dict(), strict=True)
    close(one(x), other(x))
    net(2).load_state_dict(one.state_dict(), strict=True)


def test_compile_and_export() -> None:
    model, x = net(), image()
    want = model(x)
    before = torch.compile(model, backend="eager", fullgraph=True)
    close(before(x), want)
    drop_in(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    close(compiled(x), want)
    close(before(x), want)
    exported = torch.export.export(model, (x,))
    names = {str(node.target) for node in exported.graph.nodes}
    assert {"cv3gpu.conv2d.default", "cv3gpu.separable_conv2d.default"} <= names
    close(exported.module()(x), want)


def test_a_compiled_model_sees_the_swap() -> None:
    model, graphs = nn.Sequential(nn.Conv2d(3, 4, 3)), []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph.code)
        return graph.forward

    run = torch.compile(model, backend=backend)
    run(image())
    drop_in(model)
    run(image())
    assert "cv3gpu" not in graphs[0] and "cv3gpu" in graphs[-1]
    assert drop_in(run).skipped[0].why.startswith("is a wrapper, OptimizedModule")


def test_functional_call_and_traced_graph() -> None:
    model, x = net(), image()
    want = model(x)
    graph = torch.fx.symbolic_trace(net())
    assert {row.name for row in drop_in(graph).replaced} == set(NAMES) - {"separable"}  # it calls the layers one by one
    close(graph(x), want)
    drop_in(model)
    close(torch.func.functional_call(model, {k: v * 1 for k, v in model.named_parameters()}, (x,)), want)


# ---- what is left alone, and why ------------------------------------------------------------------------


class Odd(nn.Conv2d):
    """A subclass with a forward of its own."""

    def forward(self, input: Any) -> Any:
        return super().forward(input) * 2


def reasons(model: Any, **options: Any) -> dict[str, str]:
    report = drop_in(model, **options)
    changed = {row.name for row in report.replaced}
    assert not changed & {row.name for row in report.skipped}
    return {row.name: row.why for row in report.skipped}


def hooked(model: Any) -> None:
    see = lambda *args: None  # noqa: E731
    model.stem.register_forward_hook(see)
    model.pool.register_forward_pre_hook(see)
    model.up.register_full_backward_hook(see)
    model.head.register_state_dict_post_hook(see)
    model.small.register_load_state_dict_pre_hook(see)


def test_hooks() -> None:
    model = net()
    hooked(model)
    found = reasons(model)
    assert set(found) == {"stem", "pool", "up", "head", "small"}
    assert found["stem"].startswith("has hooks") and found["head"] == "has hooks of its state_dict"
    assert type(model.stem) is nn.Conv2d


def test_hooks_inside_a_fused_part_are_called() -> None:
    model, x, calls = net(), image(), []
    want = model(x)
    model.separable.mid_norm.register_forward_hook(lambda *args: calls.append("norm"))
    assert reasons(model)["separable"].startswith("mid_norm has hooks")
    drop_out(model)
    model = net()
    drop_in(model)
    handle = model.separable.mid_norm.register_forward_hook(lambda *args: calls.append("later"))
    close(model(x), want)
    assert calls == ["later"]
    handle.remove()
    close(model(x), want)
    everywhere = nn.modules.module.register_module_forward_hook(
        lambda module, *args: calls.append(type(module).__name__)
    )
    close(model(x), want)
    everywhere.remove()
    assert calls.count("BatchNorm2d") == 2


def test_parametrizations_and_old_norms() -> None:
    model = net()
    parametrizations.weight_norm(model.stem)
    nn.utils.spectral_norm(model.head)
    prune.l1_unstructured(model.up, "weight", 0.5)
    parametrizations.spectral_norm(model.separable.depthwise)
    want, found = model(image()), reasons(model)
    assert found["stem"] == "has parametrizations of weight"
    assert all("has hooks" in found[name] for name in ("head", "up"))
    assert found["separable.depthwise"] == "has parametrizations of weight"
    close(model(image()), want)


def test_odd_ones() -> None:
    model = nn.ModuleDict(
        {
            "subclass": Odd(3, 4, 3),
            "lazy": nn.LazyConv2d(4, 3),
            "complex": nn.Conv2d(3, 4, 3, dtype=torch.complex64),
            "three": nn.Upsample(scale_factor=2, mode="trilinear"),
            "bound": nn.Conv2d(3, 4, 3),
            "prepared": nn.Conv2d(3, 4, 3),
            "compiled": nn.Conv2d(3, 4, 3),
            "tensor": nn.Conv2d(3, 4, 3),
            "parallel": nn.DataParallel(nn.Conv2d(3, 4, 3)),
            "script": torch.jit.script(nn.Conv2d(3, 4, 3)),
            "fine": nn.Conv2d(3, 4, 3),
        }
    )
    model.bound.forward = lambda x: x
    model.prepared.qconfig = torch.ao.quantization.default_qconfig
    model.compiled.compile(backend="eager")
    model.tensor.weight = type("Special", (nn.Parameter,), {})(model.tensor.weight.detach())
    found = reasons(model)
    assert set(found) == set(model) - {"fine"}
    starts = {
        "subclass": "is of a subclass, tests.test_drop_in.Odd",
        "lazy": "is lazy: run it once first",
        "complex": "is of complex64",
        "three": "has mode 'trilinear'",
        "bound": "has a forward of its own",
        "prepared": "is prepared for quantisation",
        "compiled": "was compiled by itself",
        "tensor": "has a Special as its weight",
        "parallel": "is a wrapper, DataParallel",
        "script": "is a wrapper, ScriptModule",
    }
    assert all(found[name].startswith(text) for name, text in starts.items()), found
    assert type(model.parallel.module) is nn.Conv2d
    model.lazy(image())
    assert [row.name for row in drop_in(model, exclude=["bound", "p*"]).replaced] == ["lazy"]


def test_distributed_wrapper_is_left_alone(tmp_path: Any) -> None:
    distributed = torch.distributed
    if not distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = net()
        drop_in(model)
        wrapped = nn.parallel.DistributedDataParallel(model.train())
        wrapped(image()).sum().backward()  # what is inside may have been replaced before
        assert all(p.grad is not None for p in model.parameters())
        report = drop_in(wrapped)
        assert [(row.class_name, row.name) for row in report.skipped] == [("DistributedDataParallel", "")]
    finally:
        distributed.destroy_process_group()


def test_shared_modules_once_and_a_root_that_is_a_layer() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    model = nn.ModuleDict({"a": conv, "b": nn.Sequential(conv, nn.ReLU())})
    assert [row.name for row in drop_in(model).replaced] == ["a"]
    assert drop_out(model) == ["a"]
    assert reasons(model, exclude="b.0") == {"a": "is excluded"}
    assert [row.name for row in drop_in(conv).replaced] == [""]
    assert "(model)" in str(drop_in(conv))
    assert drop_out(conv) == [""] and type(conv) is nn.Conv2d


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("separable", ["separable", "separable.depthwise", "separable.pointwise", "separable.last"]),
        ("separable.last", ["separable.last"]),
        (["s*e.p*", "head"], ["separable", "separable.pointwise", "head"]),
        (nn.MaxPool2d, ["pool", "small"]),
        ((nn.Upsample, "up"), ["up", "resize"]),
        (lambda name, module: getattr(module, "groups", 1) == 2, ["separable.last"]),
    ],
    ids=["parent", "name", "patterns", "class", "several", "function"],
)
def test_exclude(exclude: Any, left: list[str]) -> None:
    model, x = net(), image()
    want = model(x)
    report = drop_in(model, exclude=exclude)
    assert [row.name for row in report.skipped] == left
    assert all("is excluded" in row.why for row in report.skipped)
    close(model(x), want)


@pytest.mark.parametrize(
    ("ops", "names"),
    [
        ("max_pool2d", ["pool", "small"]),
        (("interpolate", "max_unpool2d"), ["unpool", "resize"]),
        ("depthwise_conv2d", ["separable.depthwise"]),
        (["dilated_conv2d", "conv_transpose2d"], ["separable.depthwise", "up"]),
        ("separable_conv2d", ["separable"]),
        ((), []),
    ],
)
def test_ops(ops: Any, names: list[str]) -> None:
    model, x = net(), image()
    want = model(x)
    report = drop_in(model, ops=ops)
    assert [row.name for row in report.replaced] == names
    assert {row.why for row in report.skipped} == {"is not among ops"}
    close(model(x), want)


# ---- layers that take more than images ------------------------------------------------------------------


def test_inputs_that_are_torchs_alone() -> None:
    model = nn.ModuleDict({"up": nn.Upsample(scale_factor=2), "pool": nn.MaxPool2d(2)})
    line, bytes_ = torch.rand(1, 2, 5), torch.randint(0, 255, (1, 2, 4, 6), dtype=torch.uint8)
    want = model.up(line), model.up(bytes_), model.pool(bytes_.int())
    drop_in(model)
    assert all(map(torch.equal, (model.up(line), model.up(bytes_), model.pool(bytes_.int())), want))
    unpool = nn.MaxUnpool2d(2)
    values, where = functional.max_pool2d(torch.rand(1, 2, 4, 6), 2, return_indices=True)
    want = unpool(values, where)
    drop_in(unpool)
    assert torch.equal(unpool(values, where), want) and torch.equal(unpool(values[0], where[0]), want[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_and_autocast(dtype: Any) -> None:
    model, x = net().to(dtype), image().to(dtype)
    want = model(x)
    drop_in(model)
    torch.testing.assert_close(model(x), want, rtol=0.05 if dtype == torch.bfloat16 else 1e-9, atol=0.02)
    model, x = net(), image()
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        drop_in(model)
        after = model(x)
    assert after.dtype == before.dtype
    torch.testing.assert_close(after, before, rtol=0.05, atol=0.05)


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        model, x = Net().eval(), torch.empty(1, 3, 16, 16)
    drop_in(model)
    assert model(x).shape == (1, 4, 16, 16)


class Block(nn.Sequential):
    """A subclass that only makes its layers, as torchvision's Conv2dNormActivation does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(nn.Conv2d(*args, bias=False, **options), nn.BatchNorm2d(args[1]), nn.ReLU6())


def test_separable_across_blocks() -> None:
    torch.manual_seed(0)
    inverted = nn.Sequential(Block(3, 8, 1), Block(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))
    model = nn.Sequential(inverted, nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))).eval()
    x = image()
    want = model(x)
    report = drop_in(model)
    fused = {row.name: row.why for row in report.replaced if row.what == "separable_conv2d"}
    assert fused == {"0": "1.0, 1.1, 1.2, 2, 3; in evaluation".replace("1.2, ", ""), "1": "0, 1"}
    close(model(x), want)
    assert type(model[0]).__name__ == "Sequential" and isinstance(model[0], nn.Sequential)
    model[0][1] = Block(8, 8, 5, padding=2, groups=8).eval()  # a part changes later
    close(model(x), model[1](model[0][3](model[0][2](model[0][1](model[0][0](x))))))


@pytest.mark.parametrize("why", ["stride", "bias of both", "not pointwise", "mode", "training"])
def test_runs_and_what_is_none(why: str) -> None:
    first: dict[str, Any] = {"groups": 4, "padding": 1, "stride": 2 if why == "stride" else 1}
    if why == "mode":
        first["padding_mode"] = "circular"
    size = 3 if why == "not pointwise" else 1
    model = nn.Sequential(nn.Conv2d(4, 4, 3, **first), nn.BatchNorm2d(4), nn.Conv2d(4, 3, size)).train(
        why == "training"
    )
    x = torch.rand(2, 4, 9, 9)
    want = copy.deepcopy(model)(x)
    report = drop_in(model)
    assert any(row.what == "separable_conv2d" for row in report.replaced) == (why not in ("not pointwise", "mode"))
    close(model(x), want)


# ---- ASPP -----------------------------------------------------------------------------------------------


class Pooled(nn.Sequential):
    """The branch of the image's mean."""

    def forward(self, x: Any) -> Any:
        size = x.shape[-2:]
        for layer in self:
            x = layer(x)
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """The head of DeepLabv3 in the form that torchvision gives it."""

    def __init__(self, channels: int, rates: tuple[int, ...], out: int) -> None:
        super().__init__()

        def chain(n: int, size: int, rate: int) -> list[Any]:
            conv = nn.Conv2d(n, out, size, padding=rate * (size // 2), dilation=rate, bias=False)
            return [conv, nn.BatchNorm2d(out), nn.ReLU()]

        branches = [nn.Sequential(*chain(channels, 1, 1)), *(nn.Sequential(*chain(channels, 3, r)) for r in rates)]
        self.convs = nn.ModuleList([*branches, Pooled(nn.AdaptiveAvgPool2d(1), *chain(channels, 1, 1))])
        self.project = nn.Sequential(*chain(out * len(self.convs), 1, 1), nn.Dropout(0.5))

    def forward(self, x: Any) -> Any:
        return self.project(torch.cat([branch(x) for branch in self.convs], 1))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of this file are those whose forward is known."""
    surgery = sys.modules["cv3gpu.nn.surgery"]
    ours = {f"{__name__}.ASPP": "torchvision.models.segmentation.deeplabv3.ASPP", f"{__name__}.PPM": "model.pspnet.PPM"}
    monkeypatch.setattr(surgery, "KNOWN", {name: surgery.KNOWN[theirs] for name, theirs in ours.items()})


@pytest.mark.usefixtures("known")
def test_aspp() -> None:
    torch.manual_seed(0)
    model, x = ASPP(6, (2, 4), 5).eval(), torch.rand(2, 6, 9, 11)
    model.project[1].running_var.fill_(2.0)
    want, text = model(x), repr(model)
    report = drop_in(model)
    assert report.replaced[0][1:] == ("ASPP", "aspp", "dilations 1, 2, 4; in evaluation")
    assert isinstance(model, ASPP) and repr(model) == text
    close(model(x), want)
    close(torch.compile(model, backend="eager", fullgraph=True)(x), want)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    close(again(x), want)
    calls: list[int] = []
    handle = again.convs[1][0].register_forward_hook(lambda *args: calls.append(1))
    close(again(x), want)
    handle.remove()
    assert calls == [1]
    twin = copy.deepcopy(model).train()
    assert drop_out(twin)[0] == "" and type(twin) is ASPP
    torch.manual_seed(1)
    got = model.train()(x)
    torch.manual_seed(1)
    close(got, twin(x))
    close(model.convs[0][1].running_mean, twin.convs[0][1].running_mean)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("change", ["bias", "rate", "norm", "layer", "hook", "exclude"])
def test_aspp_that_is_another(change: str) -> None:
    model, x = ASPP(6, (2, 4), 5).eval(), torch.rand(1, 6, 9, 9)
    if change == "bias":
        model.convs[1][0] = nn.Conv2d(6, 5, 3, padding=2, dilation=2)
    elif change == "rate":
        model.convs[1][0].padding = (3, 3)
        model.convs[1][0].dilation = (3, 2)
    elif change == "norm":
        model.convs[0][1] = nn.GroupNorm(1, 5)
    elif change == "layer":
        model.extra = nn.ReLU()
    elif change == "hook":
        model.convs[1][1].register_forward_hook(lambda *args: None)
    before = None if change == "rate" else model(x)
    report = drop_in(model, exclude="convs.2.0" if change == "exclude" else ())
    row = next(row for row in report.skipped if row.what == "aspp")
    starts = {"hook": "convs.1.1 has hooks", "exclude": "convs.2.0 is excluded"}
    assert row.why.startswith(starts.get(change, "has other layers than those that are known"))
    assert type(model) is ASPP
    if before is not None:
        close(model(x), before)


class PPM(nn.Module):
    """PSPNet's pyramid pooling module in the form that its authors give it."""

    def __init__(self, channels: int, out: int, bins: tuple[Any, ...]) -> None:
        super().__init__()

        def branch(size: Any) -> Any:
            conv = nn.Conv2d(channels, out, 1, bias=False)
            return nn.Sequential(nn.AdaptiveAvgPool2d(size), conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))

        self.features = nn.ModuleList(branch(size) for size in bins)

    def forward(self, x: Any) -> Any:
        size = x.shape[2:]
        means = (functional.interpolate(f(x), size, mode="bilinear", align_corners=True) for f in self.features)
        return torch.cat([x, *means], 1)


@pytest.mark.usefixtures("known")
def test_pyramid_pooling() -> None:
    torch.manual_seed(0)
    model, x = PPM(6, 3, (1, (2, 2), 3, 6)).eval(), torch.rand(2, 6, 9, 11)
    model.features[1][2].running_var.fill_(0.3)
    want = model(x)
    report = drop_in(model)
    assert report.replaced[0][1:] == ("PPM", "pyramid_pooling", "bins 1, 2, 3, 6; in evaluation")
    close(model(x), want)
    close(torch.compile(model, backend="eager", fullgraph=True)(x), want)
    close(pickle.loads(pickle.dumps(model))(x), want)
    twin = copy.deepcopy(model).train()
    drop_out(twin)
    assert type(twin) is PPM
    close(model.train()(x), twin(x))
    for bins in ((0,), (40,), ((2, 3),), (None,)):
        found = drop_in(PPM(6, 3, bins))
        assert found.skipped[0].why == "has other layers than those that are known"


# ---- the report, and refusals ---------------------------------------------------------------------------


def test_report() -> None:
    model = net()
    hooked(model)
    report = drop_in(model)
    told = report.to_dict()
    assert [row["name"] for row in told["replaced"]] == [row.name for row in report.replaced]
    assert told["skipped"][0] == {
        "name": "stem",
        "class_name": "Conv2d",
        "what": "conv2d",
        "why": report.skipped[0].why,
    }
    assert told["other"] == report.other and "interpolate" in told["note"]
    pickle.dumps(told)
    text = str(report)
    assert "separable.depthwise  Conv2d" in text and "3 x 3, depthwise, dilation 2" in text
    assert "6 replaced, 5 skipped; other modules: 2 BatchNorm2d, 1 ReLU, 1 ReLU6" in text and report.note in text
    assert repr(report) == "DropInReport(6 replaced, 5 skipped)"


@pytest.mark.parametrize(
    ("error", "text", "options"),
    [
        (TypeError, "drop_in: model must be a torch.nn.Module, got list", {"model": []}),
        (TypeError, "drop_in: model must be a torch.nn.Module, got type", {"model": nn.Conv2d}),
        (TypeError, "drop_in: model must be a torch.nn.Module, got None", {"model": None}),
        (ValueError, "drop_in: ops must be one of 'aspp', .* got 'conv3d'", {"ops": "conv3d"}),
        (ValueError, "drop_in: ops must be one of .* got ''", {"ops": [""]}),
        (TypeError, "drop_in: ops must be names of operators, got 3", {"ops": 3}),
        (TypeError, r"drop_in: ops must be names of operators, got \[1\]", {"ops": [1]}),
        (
            ValueError,
            "drop_in: exclude must hold names that modules of the model have, got 'stam'",
            {"exclude": "stam"},
        ),
        (ValueError, r"drop_in: exclude must hold names .* got 'x\*'", {"exclude": ["stem", "x*"]}),
        (TypeError, "drop_in: exclude must be names, classes of modules, functions .* got 7", {"exclude": 7}),
        (TypeError, "drop_in: exclude must be names, .* got <class 'int'>", {"exclude": [int]}),
        (TypeError, "drop_in: exclude must be names, .* got None", {"exclude": None}),
        (TypeError, r"drop_in: exclude must be names, .* got Conv2d\(1, 1", {"exclude": nn.Conv2d(1, 1, 1)}),
        (ZeroDivisionError, "division", {"exclude": lambda name, module: 1 / 0}),
    ],
)
def test_refusals(error: type[Exception], text: str, options: dict[str, Any]) -> None:
    model = options.pop("model", ...)
    model = net() if model is ... else model
    with pytest.raises(error, match=text):
        drop_in(model, **options)
    if isinstance(model, nn.Module):
        assert type(model.stem) is nn.Conv2d  # as it was


def test_drop_out_refuses() -> None:
    with pytest.raises(TypeError, match=r"drop_out: model must be a torch.nn.Module, got dict"):
        drop_out({})
    assert drop_out(net()) == [] and cv3gpu.nn.drop_out is drop_out
