"""What a network costs, before anything is run: parameters, mult-adds, FLOPs, memory access.

`formulas` counts one node, `count` a graph, `profile` a model before and after fusion; `bounds`
holds the algebra of efficient network design that the linter verifies by; `measure` puts measured
times beside the counts, `roofline` predicts them.
"""

from deploykit.cost.layer import ElementSizes, LayerCost, ModelProfile, StageCost
from deploykit.cost.profile import profile_model

__all__ = ["ElementSizes", "LayerCost", "ModelProfile", "StageCost", "profile_model"]
