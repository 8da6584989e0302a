"""torchvision's detectors, up to their raw heads.

A one-stage detector (SSD, SSDlite, RetinaNet, FCOS) resizes and normalizes images in Python, runs a
backbone and a head on every position, and turns what the head gives into boxes by steps whose
shapes depend on the values. What is converted is the network between the two: from a batch of
normalized images to the head's tensors, in the order and shapes that torchvision's own
``postprocess_detections`` takes them (docs/detection.md).
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

from deploykit.errors import UnsupportedModelError
from deploykit.preprocess import Preprocess

if TYPE_CHECKING:
    import torch


def is_detector(module: torch.nn.Module) -> bool:
    """Whether a network takes a list of images and gives lists of boxes, as torchvision's do."""
    return hasattr(module, "transform") and hasattr(module, "backbone")


def expose_raw_heads(module: Any, name: str) -> Preprocess:
    """Make a detector give its raw heads; names and values of its weights stay.

    Args:
        module: As torchvision builds it; its ``forward`` is replaced. It then takes (n, 3, H, W),
            normalized, and gives what its head does, by name: ``bbox_regression`` (n, anchors, 4),
            ``cls_logits`` (n, anchors, classes), and ``bbox_ctrness`` (n, anchors, 1) of FCOS.
        name: For the error.

    Returns:
        What its own transform does to an image, with the aspect ratio given up where the network
        has no fixed size.

    Raises:
        UnsupportedModelError: a detector of two stages: the second looks at regions that the first
            one finds, whose number depends on the image.
    """
    if hasattr(module, "rpn") or not hasattr(module, "head"):
        raise UnsupportedModelError(
            f"{name} is a detector of two stages: which regions its second stage looks at depends "
            "on the image",
            expected="a detector of one stage (SSD, SSDlite, RetinaNet, FCOS), which is converted "
            "up to its raw heads",
            advice="convert a part of it with fixed shapes: a module whose forward returns "
            "self.rpn.head(list(self.backbone(image).values())), by deploykit.load(MODULE, "
            "example_input=IMAGE)",
        )
    module.forward = MethodType(_raw_heads, module)
    transform = module.transform
    width, height = transform.fixed_size or (transform.min_size[-1],) * 2
    return Preprocess(
        size=(int(height), int(width)),
        mean=tuple(float(m) for m in transform.image_mean),
        std=tuple(float(s) for s in transform.image_std),
    )


def _raw_heads(self: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    features = self.backbone(images)
    maps = list(features.values()) if isinstance(features, dict) else [features]
    found: dict[str, torch.Tensor] = self.head(maps)
    return found
