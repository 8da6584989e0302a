from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from deploykit_quantize.choose_method import run_values
from deploykit_quantize.keep_float import find_kept_nodes
from deploykit_quantize.method import Calibration, Quantization
from deploykit_quantize.methods import METHODS
from deploykit_quantize.scope import Scope
from deploykit_testing.quantized import (
    NETWORK,
    POLICY,
    as_data,
    calibrate,
    fused,
    samples_of,
    snr_db,
)


def keeping(*names: str) -> frozenset[str]:
    model = fused(NETWORK)
    policy = replace(POLICY, keep_float=tuple(Scope(re.escape(name)) for name in names))
    return frozenset(n.outputs[0].name or "" for n in find_kept_nodes(model.graph.graph, policy))


def test_activations_go_with_their_layer_and_what_lies_between_kept_ones_goes_too() -> None:
    assert keeping() == frozenset()
    assert keeping("c1") == {"c1", "r1"}
    assert keeping("c3", "c4") == {"c3", "r3", "c4"}
    rest = {"c0", "c1", "c2", "c3", "c4", "g", "y"}
    everything_between = {"r0", "r1", "s", "m", "r3", "gate", "e", "ghost", "p", "a", "f"}
    assert keeping(*rest) == rest | everything_between
    assert not {"s", "m", "gate", "e", "ghost"} & keeping(*rest - {"g"})


@pytest.mark.parametrize("method", ["minmax", "equalize"])
def test_the_more_layers_are_floats_the_less_noise(method: str) -> None:
    model = fused(NETWORK)
    samples = as_data(samples_of(model, 40))
    calibration = Calibration(calibrate(model, 40), samples)
    wanted = run_values(model, ["y"], samples)[0]

    def quality(*names: str) -> float:
        policy = replace(POLICY, keep_float=tuple(Scope(re.escape(name)) for name in names))
        stage = Quantization(model, policy, calibration).quantize(METHODS[method])
        return float(snr_db(wanted, run_values(stage, ["y"], samples)[0]))

    none, some, most = (
        quality(),
        quality("c0", "c1", "c2"),
        quality("y", "c1", "c2", "c3", "c4", "g"),
    )
    assert none - 1 < some < most + 1
    assert most > none + 6
    assert np.isfinite(most)
