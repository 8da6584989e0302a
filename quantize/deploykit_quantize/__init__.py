"""Quantization: from a fused graph, a policy and a calibration table to a QDQ graph.

policy.py        recipes, rules and policies: the vocabulary
arithmetic.py    ranges to scales and zero points; weights and biases
observers.py     statistics to ranges
derive_range.py  ranges of values that calibration has not seen
scale_groups.py  which values are quantized, and which share a scale
quantizer.py     writes the QDQ graph
weight_only.py   weights alone
"""
