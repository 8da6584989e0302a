"""Points of Resize against ONNX Runtime: of a ramp, what it gives is where it read."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploykit.graph.resize_points import resize_points
from deploykit_testing.graphs import parse, run


@settings(max_examples=60, deadline=None)
@example("nearest", "half_pixel", "floor", 7, 1)  # 3 in reals, 2 in float32
@given(
    mode=st.sampled_from(["linear", "nearest"]),
    rule=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    size=st.integers(1, 9),
    output=st.integers(1, 17),
)
def test_points_are_those_that_onnx_runtime_reads(
    mode: str, rule: str, rounding: str, size: int, output: int
) -> None:
    model = parse(
        f"g (float[1,1,1,{size}] x) => (float[1,1,1,{output}] y) "
        f"<int64[4] z = {{1, 1, 1, {output}}}> "
        f'{{ y = Resize <mode = "{mode}", coordinate_transformation_mode = "{rule}", '
        f'nearest_mode = "{rounding}"> (x, , , z) }}'
    )
    ramp = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    (read,) = run(model, {"x": ramp})
    points = resize_points(list(model.graph)[-1], mode, size, output, 1)
    np.testing.assert_allclose(points, read.reshape(-1), atol=0 if mode == "nearest" else 1e-4)
