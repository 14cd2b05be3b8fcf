"""Layers of nodes, whose rows are few: each library's own products serve, of 16-bit numbers in float32."""

from __future__ import annotations

from typing import Any

from .._array import astype, dtype_name, module, zeros
from .._threads import product

__all__ = ["from_table", "linear", "narrow_product", "relu", "total", "where_positive", "wide", "zeros_like"]


def wide(x: Any) -> Any:
    """The array with sums in mind: float32 in place of 16 bits."""
    return x if dtype_name(x) in ("float32", "float64") else astype(x, "float32")


def narrow_product(x: Any, y: Any) -> Any:
    """The product, rounded to the dtype of x."""
    return astype(product(wide(x), wide(y)), dtype_name(x))


def linear(x: Any, weight: Any, bias: Any) -> Any:
    """A fully connected layer, [N, outputs]."""
    return astype(product(wide(x), wide(weight).T) + wide(bias), dtype_name(x))


def total(x: Any) -> Any:
    """The sum over rows."""
    return astype(wide(x).sum(0), dtype_name(x))


def relu(x: Any) -> Any:
    """max(0, x)."""
    return module(x).where(x < 0, zeros(x, ()), x)  # NaN stays


def where_positive(x: Any, y: Any) -> Any:
    """The entries of y where x is positive, else 0."""
    return module(x).where(x > 0, y, zeros(y, ()))


def zeros_like(x: Any) -> Any:
    """Zeros of the shape, dtype and library of x."""
    return zeros(x, tuple(x.shape))


def from_table(nodes: Any, w1: Any, by_table: Any, by_rest: Any, parts: int) -> tuple[Any, Any, Any]:
    """Gradients of nodes, w1 and b1 by those of a table [N, parts H] and of w1's columns beyond the nodes'."""
    width, channels = w1.shape[0], nodes.shape[1]
    pieces = [by_table[:, p * width : (p + 1) * width] for p in range(parts)]
    by_w1 = module(nodes).concatenate([*(piece.T @ nodes for piece in pieces), by_rest], 1)
    terms = [piece @ w1[:, p * channels : (p + 1) * channels] for p, piece in enumerate(pieces)]
    return (terms[0] + terms[1] if parts == 2 else terms[0]), by_w1, pieces[0].sum(0)
