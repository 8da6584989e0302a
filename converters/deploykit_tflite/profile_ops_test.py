"""LiteRT's own profiler."""

from __future__ import annotations

import pytest

from deploykit.errors import RunnerError
from deploykit_testing.tflite import stage_of, write
from deploykit_tflite.profile_ops import profile_ops, read_summary

SUMMARY = """==== Run Order ====
     [node type]  [start]  [first]  [avg ms]  [%]  [cdf%]  [mem KB]  [times called]  [Name]
   Delegate/Convolution (NHWC, F32) IGEMM  0.000  0.341  0.262  1.096%  1.096%  0.000  1  [Delegate]:0
   Delegate/Add (ND)  0.000  0.009  0.010  0.029%  45.944%  0.000  1  [Delegate]:1
   TfLiteXNNPackDelegate  0.000  0.400  0.300  50%  100%  0.000  1  [y]:3
==== Top by Computation Time ====
   Delegate/Add (ND)  0.000  0.009  9.000  0.029%  45.944%  0.000  1  [Delegate]:1
"""  # noqa: E501 - the runtime's own lines


def test_the_summary_s_first_table_is_read() -> None:
    assert read_summary(SUMMARY) == [
        ("Convolution (NHWC, F32) IGEMM", pytest.approx(262)),
        ("Add (ND)", pytest.approx(10)),
    ]


def test_a_summary_without_a_table_is_an_error() -> None:
    with pytest.raises(RunnerError, match="without operators"):
        read_summary("nothing")


def test_every_operator_of_a_file_is_told_in_order() -> None:
    stage = stage_of("a = Sigmoid(x) b = Exp(a) y = Sqrt(b)", "float[1,8,64,64] x", "y")
    run = profile_ops(write(stage).artifact.data, runs=5, timeout_s=60)
    assert run.runtime.startswith("LiteRT ")
    assert len(run.ops) == 3
    assert "sigmoid" in run.ops[0].name.lower()
    assert max(op.us for op in run.ops) > 0


def test_a_file_that_the_runtime_refuses() -> None:
    with pytest.raises(RunnerError, match="LiteRT's profiler failed"):
        profile_ops(b"nonsense", runs=1, timeout_s=60)
