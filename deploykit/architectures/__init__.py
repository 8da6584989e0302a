"""Networks of our own, registered as ``deploykit/NAME`` when this package is imported.

`deploykit.sources.architecture` imports it when such a name is asked for, and not before: it
needs torch.

    deploykit/mobilenet_v1       any width; timm's constructor has the published ones only
    deploykit/shufflenet_v1      groups 1, 2, 3, 4, 8; any width
    deploykit/efficientnet       compound scaling: phi 0 to 7 are B0 to B7
    deploykit/efficientnet_lite  variants 0 to 4
"""

from __future__ import annotations

from deploykit.architectures.efficientnet import build_efficientnet, build_efficientnet_lite
from deploykit.architectures.mobilenet_v1 import build_mobilenet_v1
from deploykit.architectures.shufflenet_v1 import build_shufflenet_v1
from deploykit.sources.built_architecture import register_architecture

register_architecture("efficientnet", build_efficientnet)
register_architecture("efficientnet_lite", build_efficientnet_lite)
register_architecture("mobilenet_v1", build_mobilenet_v1)
register_architecture("shufflenet_v1", build_shufflenet_v1)
