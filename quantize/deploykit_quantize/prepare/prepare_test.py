from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.calibration.collect import collect_statistics
from deploykit.graph.reading import constant_array
from deploykit.model import Model
from deploykit.tensors import Array
from deploykit_quantize.prepare.channel_classes import find_channel_classes
from deploykit_quantize.prepare.correct_bias import CorrectBias
from deploykit_quantize.prepare.equalize_activations import EqualizeActivations
from deploykit_quantize.prepare.equalize_layers import EqualizeLayers
from deploykit_quantize.quantizer import (
    Placement,
    place_integers,
    prepare_model,
    quantize_model,
)
from deploykit_testing.quantized import (
    NETWORK,
    POLICY,
    as_data,
    fused,
    run_values,
    samples_of,
    snr_db,
)

CHANNELS = 8


def network_of(steps: list[str], *, bounded: bool) -> str:
    """ONNX text of a network with ties: each step reads what came before."""
    inputs = ["float[1, 4, 8, 8] x", f"float[{CHANNELS}, 4, 3, 3] W", f"float[{CHANNELS}] B"]
    clamp = "Clip ({}, zero, six)" if bounded else "Relu ({})"
    lines = [
        "c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, W, B)",
        f"v0 = {clamp.format('c')}",
    ]
    values = ["v0"]
    for number, step in enumerate(steps, start=1):
        last, v = values[-1], f"v{number}"
        weights, bias = f"W{number}", f"B{number}"
        if step == "pointwise":
            inputs += [
                f"float[{CHANNELS}, {CHANNELS}, 1, 1] {weights}",
                f"float[{CHANNELS}] {bias}",
            ]
            lines.append(f"{v} = Conv <kernel_shape = [1, 1]> ({last}, {weights}, {bias})")
        elif step == "depthwise":
            inputs += [f"float[{CHANNELS}, 1, 3, 3] {weights}", f"float[{CHANNELS}] {bias}"]
            lines.append(
                f"d{number} = Conv <pads = [1, 1, 1, 1], group = {CHANNELS}, "
                f"kernel_shape = [3, 3]> ({last}, {weights}, {bias})"
            )
            lines.append(f"{v} = {clamp.format(f'd{number}')}")
        elif step == "add":
            lines.append(f"{v} = Add ({last}, {values[0]})")
        elif step == "shuffle":
            lines.append(f"{v} = deploykit.ChannelShuffle <groups = 2> ({last})")
        elif step == "cut":
            lines += [
                f"a{number} = Slice ({last}, start, middle, axis)",
                f"b{number} = Slice ({last}, middle, end, axis)",
                f"{v} = Concat <axis = 1> (b{number}, a{number})",
            ]
        elif step == "swish":
            lines.append(f"{v} = HardSwish ({last})")
        values.append(v)
    lines += [
        f"m = ReduceMean <keepdims = 1> ({values[-1]}, axes)",
        "f = Reshape (m, flat)",
        "y = Gemm <transB = 1> (f, G, H)",
    ]
    inputs += [f"float[5, {CHANNELS}] G", "float[5] H"]
    half = CHANNELS // 2
    constants = (
        f"float zero = {{0.0}}, float six = {{6.0}}, int64[2] axes = {{2, 3}}, int64[2] flat = "
        f"{{1, {CHANNELS}}}, int64[1] start = {{0}}, int64[1] middle = {{{half}}}, "
        f"int64[1] end = {{{CHANNELS}}}, int64[1] axis = {{1}}"
    )
    body = "\n    ".join(lines)
    shuffle = """
    <domain: "deploykit", opset_import: ["" : 20]>
    ChannelShuffle <groups> (x) => (y) {
        shape = Shape (x)
        parts = Constant <value_ints = [0, 2, 4, 8, 8]> ()
        split = Reshape (x, parts)
        moved = Transpose <perm = [0, 2, 1, 3, 4]> (split)
        y = Reshape (moved, shape)
    }"""
    return (
        f"agraph ({', '.join(inputs)}) => (float[1, 5] y)\n  <{constants}>\n{{\n    {body}\n}}"
        f"{shuffle}"
    )


def build(steps: list[str], *, bounded: bool, seed: int) -> Model:
    from deploykit.model import Stage
    from deploykit.passes.infer_shapes import InferShapes
    from deploykit_testing.graphs import as_model, parse

    header = '<ir_version: 9, opset_import: ["" : 20, "deploykit" : 1]>\n'
    graph = parse(network_of(steps, bounded=bounded), header=header, seed=seed)
    InferShapes().apply(graph)
    return as_model(graph, Stage.FUSED)


def outputs(model: Model, samples: Array) -> Array:
    return np.concatenate([run_values(model.graph, {"x": s[None]})["y"] for s in samples])


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.sampled_from(["pointwise", "depthwise", "add", "shuffle", "cut", "swish"]), max_size=6
    ),
    bounded=st.booleans(),
    layers=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equalized_networks_compute_what_they_did(
    steps: list[str], bounded: bool, layers: bool, seed: int
) -> None:
    model = build(steps, bounded=bounded, seed=seed)
    samples = samples_of(model, 8)
    table = collect_statistics(model, as_data(samples))
    algorithm = EqualizeLayers() if layers else EqualizeActivations()
    scaled, after = algorithm.apply(model, table)
    before = outputs(model, samples)
    np.testing.assert_allclose(
        outputs(scaled, samples), before, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(before).max())
    )
    for name, factors in scaled.channel_factors.items():
        value = run_values(scaled.graph, {"x": samples[0][None]})[name]
        plain = run_values(model.graph, {"x": samples[0][None]})[name]
        held = value / np.float32(factors).reshape(1, -1, *(1,) * (value.ndim - 2))
        np.testing.assert_allclose(held, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max() + 1e-6)
    if not layers:  # no tensor's range changes: its widest channel stays as it is
        for name, seen in after.values.items():
            if min(np.ravel(scaled.channel_factors.get(name, 1.0))) == 1.0:
                plain_maximum = table[name].maximum
                widest = plain_maximum + 1e-6 * abs(plain_maximum)
                assert seen.maximum <= widest or name.startswith(("c", "d"))


def test_channels_tied_by_an_addition_share_a_class_and_those_through_a_layer_do_not() -> None:
    model = build(["pointwise", "add"], bounded=False, seed=1)
    classes = find_channel_classes(model.graph.graph)
    labels = classes.labels()
    of = {v.name: labels[classes.channels(v)] for v in classes.first}
    assert np.array_equal(of["v1"], of["v0"])
    assert np.array_equal(of["v2"], of["v0"])
    assert len(set(of["v0"])) == CHANNELS
    assert not of["x"].any()
    assert not of["y"].any()
    free = build(["depthwise"], bounded=False, seed=1)
    classes = find_channel_classes(free.graph.graph)
    labels = classes.labels()
    of = {v.name: set(labels[classes.channels(v)]) for v in classes.first}
    assert not of["v0"] & of["v1"]


def test_a_curve_keeps_its_channels_as_they_are() -> None:
    model = build(["swish", "pointwise"], bounded=False, seed=1)
    classes = find_channel_classes(model.graph.graph)
    labels = classes.labels()
    of = {v.name: labels[classes.channels(v)] for v in classes.first}
    assert not of["v0"].any()
    assert not of["v1"].any()


def uneven(seed: int = 0) -> Model:
    """A network whose channels differ in range by factors of up to 2^8, and compute the same."""
    model = build(["depthwise", "pointwise", "depthwise"], bounded=False, seed=seed)
    rng = np.random.default_rng(seed)
    classes = find_channel_classes(model.graph.graph)
    labels = classes.labels()
    factors = 2.0 ** rng.uniform(-4, 4, labels.max() + 1)
    factors[0] = 1.0
    from dataclasses import replace

    from deploykit_quantize.prepare.scale_channels import scale_channels

    return replace(scale_channels(model, classes, factors[labels]), channel_factors={})


@pytest.mark.parametrize("algorithm", [EqualizeActivations(), EqualizeLayers()])
def test_a_network_with_uneven_channels_keeps_its_accuracy(
    algorithm: EqualizeActivations | EqualizeLayers,
) -> None:
    model = uneven()
    samples = samples_of(model, 40)
    table = collect_statistics(model, as_data(samples[:32]))
    expected = outputs(model, samples[32:])
    plain = quantize_model(model, POLICY, table)
    scaled, after = algorithm.apply(model, table)
    ours = quantize_model(scaled, POLICY, after)
    gain = snr_db(expected, outputs(ours, samples[32:])) - snr_db(
        expected, outputs(plain, samples[32:])
    )
    assert gain > 3
    assert any(note.matched for note in ours.notes)


def test_without_statistics_of_channels_nothing_is_scaled_and_a_note_says_so() -> None:
    from dataclasses import replace

    model = uneven()
    table = collect_statistics(model, as_data(samples_of(model, 4)))
    bare = replace(
        table,
        values={
            n: replace(s, channel_minimum=(), channel_maximum=()) for n, s in table.values.items()
        },
    )
    scaled, _ = EqualizeActivations().apply(model, bare)
    assert not scaled.channel_factors
    assert [n.matched for n in scaled.notes] == [False]


def test_corrected_biases_take_the_mean_error_of_layers_away() -> None:
    model = fused(NETWORK)
    samples = samples_of(model, 32)
    data = as_data(samples)
    table = collect_statistics(model, data)
    prepared = prepare_model(model, POLICY)
    # Biases that are off shift what every layer makes.
    stage = place_integers(prepared, POLICY, table, Placement())
    shifted = stage.graph.clone()
    for value in shifted.graph.initializers.values():
        array = constant_array(value)
        if array is not None and array.dtype == np.int32:
            value.const_value = ir.Tensor(array - np.int32(3000), name=value.name)
    broken = stage.advanced(shifted, stage.stage, ())
    corrected = CorrectBias().apply(prepared, broken, data)
    expected = outputs(model, samples)
    before, after = (snr_db(expected, outputs(s, samples)) for s in (broken, corrected))
    assert after > before + 2
    assert any(n.pass_name == "correct_bias" and n.matched for n in corrected.notes)
    # Only biases differ.
    held = [
        {n: constant_array(v) for n, v in s.graph.graph.initializers.items()}
        for s in (broken, corrected)
    ]
    new = set(held[1]) - set(held[0])
    assert new
    assert all("corrected" in name and held[1][name].dtype == np.int32 for name in new)  # type: ignore[union-attr]


def test_the_mean_error_ignores_what_the_activation_cuts_off() -> None:
    from deploykit_quantize.prepare.correct_bias import _mean_error

    a = np.zeros((1, 2, 8, 8), np.float32)
    a[:, 0] = 1.0
    a[:, 1] = -1.0
    found = _mean_error([a] * 8, [a - 0.25] * 8, (0.0, np.inf))
    np.testing.assert_allclose(found, [0.25, 0.0])
    outlier = [a - 0.25] * 7 + [a + 100]
    np.testing.assert_allclose(_mean_error([a] * 8, outlier, (0.0, np.inf)), [0.25, 0.0])
    few = np.ones((1, 2, 1, 1), np.float32)
    assert not _mean_error([few] * 8, [few - 1] * 8, (0.0, np.inf)).any()
