"""The segmentation networks under torch.compile: one graph each, forward and backward."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

from cv3gpu.nn.models import _backbones  # noqa: E402
from tests.test_models import ELEVEN, images, small  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


@pytest.mark.parametrize("name", ELEVEN)
def test_compiles_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block, _ = _backbones.RESNETS["resnet18"]
    monkeypatch.setitem(_backbones.RESNETS, "resnet18", (block, (1, 1, 1, 1)))  # tracing takes time by the layer
    options = {"aux": False} if name in ("deeplabv3", "pspnet") else {}
    network, counter, x = small(name, **options), CompileCounterWithBackend("eager"), images(32, 40)
    wanted = copy.deepcopy(network)(x)
    y = torch.compile(network, fullgraph=True, backend=counter)(x)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)
    y.sum().backward()
    assert counter.frame_count == 1
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
