"""Quantization: from a fused graph, a policy and a calibration table to a QDQ graph.

policy.py        recipes, rules and policies: the vocabulary
arithmetic.py    ranges to scales and zero points; weights and biases
observe/         statistics to ranges
round/           weights to integers
scale_groups.py  which values are quantized, and which share a scale
layer_inputs.py  what layers read, as a stream
quantizer.py     writes the QDQ graph
weight_only.py   weights alone
"""
