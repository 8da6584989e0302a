"""Counting what a network costs, for the tests of the architectures."""

from __future__ import annotations

import torch
from torch import nn


def count_mult_adds(network: nn.Module, side: int) -> int:
    """Multiplications of convolutions and linear layers on one image; a meta network will do."""
    total = 0

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        total += weight[0].numel() * output.numel()

    hooks = [
        module.register_forward_hook(add)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    device = next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side, device=device))
    for hook in hooks:
        hook.remove()
    return total
