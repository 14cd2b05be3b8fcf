"""Work on several streams, and in CUDA graphs: every torch operator on a GPU. Without one these tests wait."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.calls import calls
from tests.conftest import need_torch_cuda

torch = pytest.importorskip("torch")

# The registered operators whose kernels are all launched from the sizes of their arguments: a CUDA graph can hold them
# once they have run before.
GRAPH_SAFE = (
    "aspp",
    "aspp_vjp",
    "box_iou",
    "box_iou_vjp",
    "conv2d",
    "conv2d_adjoint_input",
    "conv2d_adjoint_weight",
    "conv_transpose2d",
    "interpolate",
    "interpolate_adjoint",
    "linear_sum_assignment",
    "max_pool2d",
    "max_pool2d_adjoint",
    "max_unpool2d",
    "max_unpool2d_adjoint",
    "message.edge_step",
    "message.edge_step_vjp",
    "message.message_sums",
    "message.message_sums_vjp",
    "message.node_step",
    "pyramid_conv2d",
    "pyramid_pooling",
    "resize_conv2d",
    "resize_conv2d_adjoint_input",
    "resize_conv2d_adjoint_weight",
    "separable_conv2d",
    "upsample_argmax",
    "upsample_cross_entropy",
    "upsample_cross_entropy_vjp",
)

# The others, which read something back from the device on the way.
WAITS = {
    "dense_crf": "the number of vertices of a lattice",
    "dense_crf_vjp": "the number of vertices of a lattice",
    "gaussian_filter": "the number of vertices of a lattice",
    "gaussian_filter_vjp": "the number of vertices of a lattice",
}

# Registered steps of those above.
INNER = {
    "atrous_branches",
    "pyramid_expand",
    "pyramid_expand_adjoint",
    "pyramid_maps",
    "pyramid_pool",
    "pyramid_pool_adjoint",
}


def flat(result: Any) -> list[Any]:
    """The tensors of a result."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [x for part in result for x in flat(part)] if isinstance(result, list | tuple) else []


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


@functools.cache
def call_of(name: str) -> Callable[[], Any]:
    """The operator on the GPU, compiled and loaded."""
    need_torch_cuda()
    call = calls("gpu-torch")[name]
    call()
    torch.cuda.synchronize()
    return call


def test_every_registered_operator_says_whether_a_graph_can_hold_it() -> None:
    from cv3gpu.nn.ops import OPERATORS

    listed = {name.rpartition(".")[2] for name in (*GRAPH_SAFE, *WAITS)}
    assert set(OPERATORS) == listed | INNER
    assert set(GRAPH_SAFE) | set(WAITS) <= set(calls("torch"))


@pytest.mark.parametrize("name", GRAPH_SAFE)
def test_two_streams(name: str) -> None:
    """A hundred turns on two side streams, each behind a delay: inputs that come late, results that are read early."""
    call = call_of(name)
    inputs = [x for x in flat(list(call.args)) if x.is_floating_point()]
    want = call()
    late = [x.clone() for x in inputs]
    streams = [torch.cuda.Stream() for _ in range(2)]
    for x in inputs:
        x.zero_()
    torch.cuda.synchronize()
    found = []
    for turn in range(100):
        with torch.cuda.stream(streams[turn % 2]):
            streams[turn % 2].wait_stream(streams[1 - turn % 2])
            for x in inputs:
                x.zero_()
            torch.cuda._sleep(200_000)
            for x, kept in zip(inputs, late, strict=True):
                x.copy_(kept)
            found.append(call())
    for stream in streams:
        torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    assert sum(not equal(got, want) for got in found) == 0


@pytest.mark.parametrize("name", GRAPH_SAFE)
def test_capture_and_ten_replays(name: str) -> None:
    call = call_of(name)
    inputs = [x for x in flat(list(call.args)) if x.is_floating_point()]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    first = [x.clone() for x in inputs]
    try:
        for turn in range(10):
            for x, kept in zip(inputs, first, strict=True):
                x.copy_(kept * (1 + turn / 10))
            for x in flat(captured):
                x.zero_()
            graph.replay()
            torch.cuda.synchronize()
            assert equal(captured, call()), f"replay {turn}"
    finally:
        for x, kept in zip(inputs, first, strict=True):
            x.copy_(kept)
