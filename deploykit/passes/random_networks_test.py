"""Whole networks of random layers, through every pass: the numbers stay, the form is canonical."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.graph.ops import is_canonical
from deploykit.model import Stage
from deploykit.passes.pipeline import advance
from deploykit_testing.graphs import (
    as_model,
    assert_described,
    assert_same_numbers,
    ops,
    parse,
)

_CONSTANTS = """float zero = {0}, float one = {1}, float half = {0.5}, float three = {3},
    float six = {6}, float sixth = {0.16666667}, float low = {-3.4028234663852886e38}"""


@dataclass
class _Network:
    """ONNX text that grows by layers; ``value`` is the last one, of (2, channels, size, size)."""

    channels: int = 4
    size: int = 8
    value: str = "x"
    count: int = 0
    body: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    shaped: dict[tuple[int, int], list[str]] = field(default_factory=dict)

    def weight(self, *dims: int, role: str = "W") -> str:
        """A new weight."""
        name = f"{role}{len(self.weights)}"
        self.weights.append(f"float[{','.join(map(str, dims))}] {name}")
        return name

    def ints(self, *numbers: int) -> str:
        """A new Constant node of int64."""
        self.count += 1
        text = ", ".join(map(str, numbers))
        self.body.append(f"k{self.count} = Constant <value_ints = [{text}]> ()")
        return f"k{self.count}"

    def put(self, expression: str) -> str:
        """A new node; its output becomes the last value."""
        self.count += 1
        self.value = f"v{self.count}"
        self.body.append(f"{self.value} = {expression}")
        return self.value

    def end_layer(self) -> None:
        """Remember the value, so that a later layer can add it."""
        self.shaped.setdefault((self.channels, self.size), []).append(self.value)


def _conv(net: _Network, draw: st.DrawFn) -> None:
    groups = draw(st.sampled_from([1, 2, net.channels]))
    stride = draw(st.sampled_from([1, 1, 2])) if net.size >= 4 else 1
    weights = net.weight(net.channels, net.channels // groups, 3, 3)
    bias = f", {net.weight(net.channels, role='B')}" if draw(st.booleans()) else ""
    padding = draw(st.sampled_from(["pads", "auto", "node"]))
    source = net.value
    attributes = f"group = {groups}, strides = [{stride}, {stride}]"
    if padding == "pads":
        attributes += ", pads = [1, 1, 1, 1]"
    elif padding == "auto":
        attributes += ', auto_pad = "SAME_LOWER"'
    else:
        source = net.put(f"Pad ({source}, {net.ints(0, 0, 1, 1, 0, 0, 1, 1)})")
    net.put(f"Conv <{attributes}> ({source}, {weights}{bias})")
    net.size = -(-net.size // stride)


def _batchnorm(net: _Network, draw: st.DrawFn) -> None:
    parts = [net.weight(net.channels, role=role) for role in ("G", "B", "M", "Var")]
    net.put(f"BatchNormalization ({net.value}, {', '.join(parts)})")


def _activation(net: _Network, draw: st.DrawFn) -> None:
    x = net.value
    kind = draw(st.sampled_from(["relu", "relu6", "hard_sigmoid", "hard_swish", "silu", "gate"]))
    if kind == "relu":
        net.put(f"Max (zero, {x})")
    elif kind == "relu6":
        net.put(f"Min ({net.put(f'Relu ({x})')}, six)")
    elif kind == "silu":
        net.put(f"Mul ({net.put(f'Sigmoid ({x})')}, {x})")
    elif kind == "gate":
        mean = net.put(f"GlobalAveragePool ({x})")
        net.put(f"Mul ({x}, {net.put(f'HardSigmoid <alpha = 0.16666667> ({mean})')})")
    else:
        clip = net.put(f"Clip ({net.put(f'Add ({x}, three)')}, zero, six)")
        if kind == "hard_swish":
            clip = net.put(f"Mul ({x}, {clip})")
        net.put(f"Div ({clip}, six)")


def _shuffle(net: _Network, draw: st.DrawFn) -> None:
    groups = draw(st.sampled_from([g for g in (2, 4) if net.channels % g == 0]))
    c, s = net.channels, net.size
    middle = net.ints(2, groups, c // groups, s, s)
    grouped = net.put(f"Reshape ({net.value}, {middle})")
    swapped = net.put(f"Transpose <perm = [0, 2, 1, 3, 4]> ({grouped})")
    net.put(f"Reshape ({swapped}, {net.ints(2, c, s, s)})")


def _unit(net: _Network, draw: st.DrawFn) -> None:
    x, c = net.value, net.channels
    net.count += 1
    left, right = f"a{net.count}", f"b{net.count}"
    net.body.append(f"{left}, {right} = Split <axis = 1, num_outputs = 2> ({x})")
    right = net.put(f"Conv ({right}, {net.weight(c // 2, c // 2, 1, 1)})")
    net.put(f"Concat <axis = 1> ({left}, {right})")
    if draw(st.booleans()):
        _shuffle(net, draw)


def _residual(net: _Network, draw: st.DrawFn) -> None:
    earlier = net.shaped.get((net.channels, net.size), [])
    if earlier:
        net.put(f"Add ({draw(st.sampled_from(earlier))}, {net.value})")


def _pool(net: _Network, draw: st.DrawFn) -> None:
    if net.size < 4:
        return
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    ceil = draw(st.integers(0, 1))
    net.put(f"{op} <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = {ceil}> ({net.value})")
    net.size = -(-net.size // 2) if ceil else net.size // 2


def _noise(net: _Network, draw: st.DrawFn) -> None:
    op = draw(st.sampled_from(["Identity ({x})", "Dropout ({x})", "Add ({x}, zero)", "Sum ({x})"]))
    net.put(op.format(x=net.value))


_LAYERS = [_conv, _conv, _batchnorm, _batchnorm, _activation, _activation]
_LAYERS += [_shuffle, _unit, _residual, _pool, _noise]


@st.composite
def networks(draw: st.DrawFn) -> str:
    """ONNX text of a network of up to eight layers, with a classifier."""
    net = _Network(channels=draw(st.sampled_from([4, 8])))
    stem = net.weight(net.channels, 3, 1, 1)
    net.put(f"Conv (x, {stem})")
    net.end_layer()
    for layer in draw(st.lists(st.sampled_from(_LAYERS), min_size=1, max_size=8)):
        layer(net, draw)
        net.end_layer()
    second = net.value
    pooled = net.put(f"GlobalAveragePool ({net.value})")
    flat = net.put(f"Flatten ({pooled})")
    product = net.put(f"MatMul ({flat}, {net.weight(net.channels, 5)})")
    net.body.append(f"y = Add ({product}, {net.weight(5, role='B')})")
    outputs = "float[2,5] y"
    if draw(st.booleans()):
        net.body.append(f"z = Relu ({second})")
        outputs += ", float[2,C,H,V] z"
    inputs = ", ".join(["float[2,3,8,8] x", *net.weights])
    return f"g ({inputs}) => ({outputs}) <{_CONSTANTS}> {{ {' '.join(net.body)} }}"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(text=networks(), seed=st.integers(0, 1000))
def test_the_fused_stage_is_canonical_and_the_same(text: str, seed: int) -> None:
    exported = as_model(parse(text, seed=seed))
    simplified = advance(exported, Stage.SIMPLIFIED)
    fused = advance(simplified, Stage.FUSED)
    left = set(ops(fused.graph))
    assert not left & {"BatchNormalization", "Identity", "Constant", "Dropout", "Erf", "Cast"}
    assert all(is_canonical(node.domain, node.op_type) for node in fused.graph.graph)
    for stage in (simplified, fused):
        assert_described(stage.graph)
        assert_same_numbers(exported.graph, stage.graph, seed=seed, tolerance=2e-5)
    values = [o.name for node in fused.graph.graph for o in node.outputs]
    assert len(set(values)) == len(values)
