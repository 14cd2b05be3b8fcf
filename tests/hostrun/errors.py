"""What a launch on the CPU can raise."""


class HostError(RuntimeError):
    """A kernel did something wrong, was called wrongly, or could not be compiled."""


class RaceError(HostError):
    """Two threads touched the same memory, at least one wrote, and nothing orders them."""
