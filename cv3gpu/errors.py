"""The named errors and warnings of cv3gpu, each a subclass of the built-in that a caller would catch."""

__all__ = [
    "BackendUnavailableError",
    "ConvergenceWarning",
    "DataFormatError",
    "DivergedError",
    "KernelCompileError",
    "OutOfMemoryError",
]


class BackendUnavailableError(ImportError):
    """A library, a driver or a GPU that the call needs is missing; the text says what installs it."""


class KernelCompileError(RuntimeError):
    """A kernel did not compile; the text holds the compiler's log with file and line."""


class DataFormatError(ValueError):
    """A data file is malformed; the text starts with ``file:line``."""


class DivergedError(ArithmeticError):
    """The loss of a training is no longer a finite number; the text says where. What was saved before stands."""


class OutOfMemoryError(MemoryError):
    """The device has not the memory that the call asked for; the text says how much of each.

    ``asked`` and ``free`` are bytes, or None where the library does not say; ``__cause__`` is the library's own error.
    """

    def __init__(self, text: str, asked: int | None = None, free: int | None = None) -> None:
        super().__init__(text)
        self.asked = asked
        self.free = free


class ConvergenceWarning(UserWarning):
    """An iterative operator stopped before it met its tolerance."""
