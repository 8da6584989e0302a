"""Rounding: from real weights and their scales to integers.

base.py           what a rounding is
nearest.py        each weight to the nearest integer
keep_sums.py      each spatial kernel keeps its sum; needs no data
second_order.py   each layer keeps what it does to its calibration inputs
optimal_brain.py  the arithmetic of the last two
"""
