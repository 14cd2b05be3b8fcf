"""Fuzzing of every reader of files and of the operators: ``python -m tests.fuzz [--family NAME ...] [--seconds 60]``.

A family is a function that makes one case from a random generator, tries it, and raises if what comes is neither the
right result nor the refusal that the package promises. A case is told by its family, a seed and a number, and is made
again from these three: see :func:`tests.fuzz.engine.again`.
"""

from .engine import FAMILIES, Family, Wrong, again
from .operators import OPERATORS
from .parsers import PARSERS

__all__ = ["FAMILIES", "OPERATORS", "PARSERS", "Family", "Wrong", "again"]
