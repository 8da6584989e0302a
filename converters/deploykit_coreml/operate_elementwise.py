"""Ops on one or two operands, element by element, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from deploykit.tensors import Array
from deploykit_coreml.operation_table import Parameters, UnknownFormError, operation

_ERF: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


_UNARY: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "erf": lambda x: _ERF(x.astype(np.float64)).astype(np.float32),
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": np.power,
}


@operation(*_UNARY, reads="x")
def compute_unary(parameters: Parameters) -> Array:
    """A function of one operand."""
    return _UNARY[parameters.op.type](parameters.real())


@operation(*_BINARY, reads="x y")
def compute_binary(parameters: Parameters) -> Array:
    """A function of two operands, with numpy's broadcasting."""
    return _BINARY[parameters.op.type](parameters.real("x"), parameters.real("y"))


@operation("clip", reads="x alpha beta")
def compute_clip(parameters: Parameters) -> Array:
    """min(max(x, alpha), beta)."""
    low, high = parameters.number("alpha"), parameters.number("beta")
    return np.clip(parameters.real(), np.float32(low), np.float32(high))


@operation("leaky_relu", reads="x alpha")
def compute_leaky_relu(parameters: Parameters) -> Array:
    """x, or alpha x where that is negative."""
    x = parameters.real()
    return np.where(x >= 0, x, x * np.float32(parameters.number("alpha")))


@operation("prelu", reads="x alpha")
def compute_prelu(parameters: Parameters) -> Array:
    """x, or slope x where that is negative, each channel (axis 1) with its own."""
    x, slope = parameters.real(), parameters.real("alpha")
    if slope.ndim != 1 or slope.size != x.shape[1]:
        raise UnknownFormError(f"slopes of shape {slope.shape} for {x.shape[1]} channels")
    shaped = slope.reshape(1, -1, *[1] * (x.ndim - 2))
    return np.where(x >= 0, x, x * shaped)


@operation("elu", reads="x alpha")
def compute_elu(parameters: Parameters) -> Array:
    """x, or alpha (exp(x) - 1) where that is negative."""
    x, alpha = parameters.real(), np.float32(parameters.number("alpha"))
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@operation("thresholded_relu", reads="x alpha")
def compute_thresholded_relu(parameters: Parameters) -> Array:
    """x where x >= alpha, otherwise 0."""
    x = parameters.real()
    return np.where(x >= np.float32(parameters.number("alpha")), x, np.float32(0))


@operation("sigmoid_hard", reads="x alpha beta")
def compute_sigmoid_hard(parameters: Parameters) -> Array:
    """min(max(alpha x + beta, 0), 1)."""
    alpha, beta = (np.float32(parameters.number(name)) for name in ("alpha", "beta"))
    gate: Array = np.clip(parameters.real() * alpha + beta, np.float32(0), np.float32(1))
    return gate


@operation("gelu", reads="x mode")
def compute_gelu(parameters: Parameters) -> Array:
    """x Phi(x), by the error function or by tanh (Hendrycks and Gimpel, 2016)."""
    x, mode = parameters.real(), parameters.text("mode") if parameters.has("mode") else "EXACT"
    if mode == "EXACT":
        curve = _ERF(x.astype(np.float64) / math.sqrt(2)).astype(np.float32)
    elif mode == "TANH_APPROXIMATION":
        curve = np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3))
    else:
        raise UnknownFormError(f"gelu by {mode!r}")
    result: Array = np.float32(0.5) * x * (1 + curve)
    return result


@operation("softmax", reads="x axis")
def compute_softmax(parameters: Parameters) -> Array:
    """exp(x) / sum exp(x) along an axis; -1 if it is omitted."""
    x = parameters.real()
    axis = parameters.integer("axis") if parameters.has("axis") else -1
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    shares: Array = powers / powers.sum(axis=axis, keepdims=True)
    return shares
