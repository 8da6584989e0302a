"""torchvision's detectors and segmentation networks, built without a download."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deploykit
from deploykit.errors import UnsupportedModelError
from deploykit.sources.options import LoadOptions
from deploykit.sources.torchvision_architecture import build_torchvision
from deploykit_testing.reported_files import smooth

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("ai_edge_litert")

DOCUMENT = Path(__file__).parent.parent / "docs" / "detection.md"
NAME = "torchvision/ssdlite320_mobilenet_v3_large"
SIZE = 96


def test_raw_heads_are_converted_verified_and_decoded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    built = build_torchvision(NAME.partition("/")[2], {"num_classes": 4})
    assert built.input_shape == (1, 3, 320, 320)
    assert built.preprocess is not None
    assert built.preprocess.mean == (0.5, 0.5, 0.5)
    torch.save(built.module.state_dict(), tmp_path / "detector.pt")

    options = LoadOptions(arch=NAME, arch_kwargs={"num_classes": 4}, input_shape=(1, 3, SIZE, SIZE))
    model = deploykit.load(tmp_path / "detector.pt", options=options)
    (anchors,) = {spec.shape[1] for spec in model.outputs}
    assert [spec.shape[2] for spec in model.outputs] == [4, 4]
    samples = smooth(np.random.default_rng(0), 8, 3, SIZE, SIZE) / 4
    request = deploykit.ConvertRequest(
        precisions=("fp32", "int8"), out=tmp_path / "bundle", calibration=samples, samples=4
    )
    result = deploykit.convert(model, request)
    assert result.report.passed, result.report
    assert [a.precision for a in result.bundle.artifacts] == ["fp32", "int8"]

    image = torch.from_numpy(samples[:1])
    with torch.no_grad():
        heads = built.module.eval()(image)
    assert heads["bbox_regression"].shape == (1, anchors, 4)
    check_decoding(built.module, heads, image)


def check_decoding(detector: Any, heads: Any, image: Any) -> None:
    """The document's code gives what torchvision's own does."""
    from torchvision.models.detection.image_list import ImageList

    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "def detect" in block), names)
    maps = list(detector.backbone(image).values())
    anchors = detector.anchor_generator(ImageList(image, [(SIZE, SIZE)]), maps)
    # An untrained head is sure of nothing: numbers of the same shapes, as a trained one gives them.
    spread = {"cls_logits": 3.0, "bbox_regression": 1.0}
    heads = {name: torch.randn(heads[name].shape) * width for name, width in spread.items()}
    detector.score_thresh = 0.3
    (expected,) = detector.postprocess_detections(heads, anchors, [(SIZE, SIZE)])
    boxes, labels, scores = names["detect"](
        heads["bbox_regression"][0].detach().numpy(),
        heads["cls_logits"][0].detach().numpy(),
        anchors[0].numpy(),
        size=(SIZE, SIZE),
        score=0.3,
        overlap=detector.nms_thresh,
    )
    count = len(expected["scores"])
    assert count > 3
    np.testing.assert_allclose(scores[:count], expected["scores"].detach().numpy(), rtol=1e-4)
    np.testing.assert_allclose(boxes[:count], expected["boxes"].detach().numpy(), atol=1e-2)
    np.testing.assert_array_equal(labels[:count], expected["labels"].numpy())


def test_detectors_of_two_stages_are_refused_in_words() -> None:
    with pytest.raises(UnsupportedModelError, match="two stages") as caught:
        build_torchvision("fasterrcnn_mobilenet_v3_large_320_fpn", {"num_classes": 4})
    assert "rpn.head" in caught.value.advice


def test_a_segmentation_network_is_built_without_a_download(tmp_path: Path) -> None:
    built = build_torchvision("lraspp_mobilenet_v3_large", {"num_classes": 3})
    model = deploykit.load(built.module, example_input=torch.zeros(1, 3, 64, 64))
    request = deploykit.ConvertRequest(precisions=("fp32",), out=tmp_path / "bundle", samples=2)
    result = deploykit.convert(model, request)
    assert result.report.passed, result.report
    assert [spec.shape for spec in model.outputs] == [(1, 3, 64, 64)]
