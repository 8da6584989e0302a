"""Observing: from what values hold to the ranges that are quantized.

choose_range.py       statistics to a range: min-max, percentile, least squared error, entropy
derive_range.py       ranges of values that calibration has not seen
read_activations.py   ranges of values that only an activation reads, by what comes out of it
"""
