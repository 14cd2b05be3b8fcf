"""What the training of any network needs: schedule, state to resume from, metrics file, interruption, processes."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from .. import _check, _files, _weights
from ..errors import DataFormatError, DivergedError

__all__ = [
    "DivergedError",
    "Interrupted",
    "Processes",
    "arrays_of",
    "check_finite",
    "interruptible",
    "load_named",
    "poly",
    "processes",
    "read_state",
    "require_same",
    "write_metrics",
    "write_state",
]


class Interrupted(Exception):
    """Training was asked to stop, and has saved a state that it can be resumed from."""


# ---- schedule -------------------------------------------------------------------------------------------


def poly(step: int, steps: int, warmup: int = 0, power: float = 0.9) -> float:
    """The factor of the learning rate: a line up to 1 over ``warmup`` steps, then (1 - share done) ** power.

    References
    ----------
    L.-C. Chen et al., "DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution, and fully
    connected CRFs", PAMI 2018, section 4.1.2.

    Examples
    --------
    >>> [round(poly(step, 4, power=1.0), 2) for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    >>> [poly(step, 6, warmup=2, power=1.0) for step in range(3)]
    [0.5, 1.0, 1.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    return float((1 - (step - warmup) / max(1, steps - warmup)) ** power)


def check_finite(loss: float, epoch: int, step: int) -> None:
    """Raises `DivergedError` unless the loss is finite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"training: the loss must be finite, got {loss} at epoch {epoch}, step {step}; a smaller learning rate, or "
            "a longer warm-up, may mend it"
        )


# ---- files ----------------------------------------------------------------------------------------------


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes what training goes on from: tensors, numbers, words, and lists and dicts of them."""
    with _files.replacing(path) as unfinished:
        torch.save(dict(state), unfinished)


def read_state(path: Path) -> dict[str, Any]:
    """Reads it again, by torch's reader that runs nothing; a file of another kind raises `DataFormatError`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises whatever its damage leads to
        first = str(error).partition("\n")[0]
        raise DataFormatError(f"{path}: must be a state of training, got {first}") from error
    if not isinstance(state, dict):
        raise DataFormatError(f"{path}: must be a state of training, got {_check.kind(state)}")
    return state


def require_same(op: str, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """What is resumed must be asked for as it was begun; the first setting that differs is named."""
    for name in asked:
        if saved.get(name) != asked[name]:
            advice = "a training is resumed with the settings that it was begun with"
            _check.fail(op, name, f"be {saved.get(name)!r}", repr(asked[name]), advice)


def write_metrics(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file, whole or not at all; the columns are those of the first row."""
    with _files.replacing(path) as unfinished, open(unfinished, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def arrays_of(network: torch.nn.Module) -> dict[str, Any]:
    """The parameters and buffers as NumPy arrays; 16-bit brain floats, which NumPy lacks, as float32."""
    found = {}
    for name, value in network.state_dict().items():
        value = value.detach().cpu()
        found[name] = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return found


def load_named(network: torch.nn.Module, path: Path) -> tuple[list[str], list[str]]:
    """Takes from a file of weights what the network has by the same name and shape; returns what was, and was not.

    The first list names what was taken, the second what of the network keeps its initial values.
    """
    arrays, _ = _weights.read(path)
    own = network.state_dict()
    taken = {
        name: torch.from_numpy(arrays[name])
        for name, value in own.items()
        if name in arrays and arrays[name].shape == tuple(value.shape)
    }
    network.load_state_dict(taken, strict=False)
    return list(taken), [name for name in own if name not in taken]


# ---- interruption ---------------------------------------------------------------------------------------


class _Flag:
    """Whether training was asked to stop."""

    raised = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.raised:  # asked twice: at once
            raise KeyboardInterrupt
        self.raised = True


@contextlib.contextmanager
def interruptible() -> Iterator[_Flag]:
    """Inside, Ctrl-C (or SIGTERM) raises a flag, to be looked at after each step, when the state is whole.

    A second one interrupts at once. In a thread, where Python takes no signals, the flag is never raised.
    """
    flag = _Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- processes ------------------------------------------------------------------------------------------


class Processes:
    """The processes that train together: one, or those that ``torchrun`` has started."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.count > 1:
            distributed.all_reduce(x)
        return x

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is so in one of them: all of them stop, or none."""
        return bool(flag) if self.count == 1 else bool(self.total(torch.tensor([int(flag)], device=device)).item())


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Joins the processes that ``torchrun`` has started: by gloo on CPUs, by NCCL on GPUs; else there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    joined = not distributed.is_initialized()
    if joined:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        if joined:
            distributed.destroy_process_group()
