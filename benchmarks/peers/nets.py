"""The ten compact networks, the same in every environment.

It needs torch, torchvision, timm, numpy and the folder of deploykit on PYTHONPATH, no more: the
environment of a peer has those and not what deploykit itself runs with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deploykit_zoo.full_size import NETWORKS

if TYPE_CHECKING:
    import torch

#: Name → architecture, as ``--arch`` takes it.
NETS = NETWORKS


def build_net(name: str) -> torch.nn.Module:
    """A network with random weights and BatchNorm statistics that are not trivial.

    Raises:
        KeyError: the name is none of `NETS`.
    """
    import torch

    from deploykit.sources.architecture import build_architecture

    torch.manual_seed(0)
    net = build_architecture(NETS[name], {}).module
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0.0, 0.1)
    return net.eval()


def load_net(name: str, folder: Path) -> torch.nn.Module:
    """A network with the weights that ``run.py`` wrote to ``folder``."""
    import torch

    net = build_net(name)
    net.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    return net.eval()
