from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from deploykit.errors import SourceError, UserError
from deploykit.preprocess import Preprocess
from deploykit_zoo.checkpoint import Checkpoint, half_precision_state, write_checkpoint
from deploykit_zoo.export import export_checkpoint
from deploykit_zoo.networks import build_network, network_of_checkpoint


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    kwargs = {"num_classes": 3, "width": 0.25}
    network = build_network("deploykit/mobilenet_v1", kwargs)
    return Checkpoint(
        arch="deploykit/mobilenet_v1",
        arch_kwargs=kwargs,
        state_dict=half_precision_state(network.state_dict()),
        preprocess=Preprocess(size=(32, 40)),
        labels=("a", "b", "c"),
        calibration=torch.zeros(1, 4, 4, 1, dtype=torch.uint8),
        metrics={"top1": 0.5, "test_images": 1},
        training={},
    )


@pytest.fixture(scope="module")
def path(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "net.pt"
    write_checkpoint(file, checkpoint)
    return file


def expected(checkpoint: Checkpoint, tensors: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network_of_checkpoint(checkpoint)(torch.from_numpy(tensors)).numpy()


def test_onnx_gives_the_logits_of_the_checkpoint(
    checkpoint: Checkpoint, path: Path, tmp_path: Path
) -> None:
    tensors = np.random.default_rng(0).normal(size=(1, 3, 32, 40)).astype(np.float32)

    export_checkpoint(path, tmp_path / "net.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: tensors})
    np.testing.assert_allclose(logits, expected(checkpoint, tensors), rtol=1e-4, atol=1e-6)


def test_pt2_gives_the_logits_of_the_checkpoint(
    checkpoint: Checkpoint, path: Path, tmp_path: Path
) -> None:
    tensors = np.random.default_rng(0).normal(size=(1, 3, 32, 40)).astype(np.float32)

    export_checkpoint(path, tmp_path / "net.pt2")

    program = torch.export.load(tmp_path / "net.pt2").module()
    logits = program(torch.from_numpy(tensors)).detach().numpy()
    np.testing.assert_allclose(logits, expected(checkpoint, tensors), rtol=1e-4, atol=1e-6)


def test_another_suffix_is_refused_and_nothing_is_written(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.onnx or \.pt2"):
        export_checkpoint(path, tmp_path / "net.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        export_checkpoint(tmp_path / "no.pt", tmp_path / "net.onnx")
