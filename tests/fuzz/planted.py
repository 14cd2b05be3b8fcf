"""A family that goes wrong: what shows that the others would be found out."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from .engine import FAMILIES, Family, Wrong

__all__ = ["PLANTED"]

PLANTED = "planted"


def _try_one(rng: np.random.Generator, folder: Path) -> int:
    """The first case is right, the next dies, the next hangs where no signal comes; all that follow are wrong."""
    counter = Path(os.environ["CV3GPU_PLANTED"])
    case = int(counter.read_text() or "0")
    counter.write_text(str(case + 1))
    if case == 1:
        os.abort()
    if case == 2:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(600)
    if case > 2:
        raise Wrong(f"planted, {rng.integers(10)}")
    (folder / "file").write_text("here")
    return 1


FAMILIES[PLANTED] = Family(PLANTED, _try_one)
