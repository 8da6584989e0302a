"""Every family at its full size, 224 x 224 and 1000 classes, with weights that nobody trained.

They are for tests and tables: what a file is made of, and whether it computes what its network
does, needs the real shapes and real BatchNorm statistics, but no training.

Each BatchNorm's statistics are those of what reaches it, gathered over a few images, so that the
values of every layer have the ranges that quantization meets. Its scale is drawn from 0.5 to 1.5,
its shift from a normal distribution around 0.5. With shifts around 0 half of all units are off, and
such a network without training is chaotic: it magnifies a rounding of its weights about 40 times
from input to output (MobileNetV2 with float16 weights: 28 dB; trained ones: 65 dB), and so tells
little of a conversion. Around 0.5 it is 43 dB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deploykit.errors import SourceError
from deploykit.preprocess import Preprocess
from deploykit_zoo.checkpoint import Checkpoint, import_torch
from deploykit_zoo.networks import build_network

if TYPE_CHECKING:
    import torch

#: Name → architecture, as ``--arch`` takes it.
NETWORKS: Mapping[str, str] = {
    "mobilenet_v1": "timm/mobilenetv1_100",
    "mobilenet_v2": "torchvision/mobilenet_v2",
    "mobilenet_v3_small": "torchvision/mobilenet_v3_small",
    "mobilenet_v3_large": "torchvision/mobilenet_v3_large",
    "shufflenet_v1": "deploykit/shufflenet_v1",
    "shufflenet_v2": "torchvision/shufflenet_v2_x1_0",
    "efficientnet_b0": "torchvision/efficientnet_b0",
    "efficientnet_lite0": "timm/efficientnet_lite0",
    "ghostnet": "timm/ghostnet_100",
    "mnasnet": "torchvision/mnasnet1_0",
}

PREPROCESS = Preprocess(size=(224, 224))

#: Images that statistics are gathered over, and that a conversion calibrates with.
IMAGES = 16

_SIDE, _GRID, _NOISE = 28, 5, 32
_SEED = 0


def full_size_checkpoint(name: str) -> Checkpoint:
    """A network of `NETWORKS` with weights, statistics and images; the same at each call.

    Raises:
        SourceError: no such network.
        MissingDependencyError: torch, or the library that has the network, is not installed.
    """
    if name not in NETWORKS:
        raise SourceError(
            f"no network of full size is called '{name}'", expected=f"one of {', '.join(NETWORKS)}"
        )
    torch = import_torch()
    images = smooth_images(IMAGES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = build_network(NETWORKS[name], {})
        tensors = np.stack([PREPROCESS.apply(image) for image in images])
        gather_statistics(network, torch.from_numpy(tensors))
    return Checkpoint(
        arch=NETWORKS[name],
        arch_kwargs={},
        state_dict=network.state_dict(),
        preprocess=PREPROCESS,
        labels=(),
        calibration=torch.from_numpy(images),
        metrics={},
        training={"weights": "random", "statistics_images": IMAGES, "seed": _SEED},
    )


def gather_statistics(network: torch.nn.Module, tensors: torch.Tensor) -> None:
    """Give every BatchNorm a random scale and shift, and the statistics of what reaches it.

    Args:
        network: Changed in place, and in evaluation mode afterwards. Each BatchNorm reads what the
            ones before it make of the statistics of this very batch, as in training.
        tensors: float32 (n, channels, height, width), one batch.
    """
    import torch

    network.eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0.5, 0.3)
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over the batches, of which there is one
            layer.train()
    with torch.no_grad():
        network(tensors)
    network.eval()


def smooth_images(count: int, seed: int = _SEED) -> npt.NDArray[np.uint8]:
    """Coloured images of a few soft blots with some grain: no plane of one colour in them.

    Returns:
        uint8 (count, 28, 28, 3).
    """
    from PIL import Image

    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        grid = generator.integers(0, 256, (_GRID, _GRID, 3), dtype=np.uint8)
        blots = Image.fromarray(grid).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        grain = generator.integers(-_NOISE, _NOISE + 1, (_SIDE, _SIDE, 3))
        images.append(np.clip(np.asarray(blots, dtype=np.int64) + grain, 0, 255))
    return np.stack(images).astype(np.uint8)
