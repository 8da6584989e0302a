"""Calibration: what the values of a fused model hold over a set of real inputs.

data.py       images and arrays as a stream of input tensors
named_data.py the same by input: several inputs, and samples from Python
check.py      sets that cannot be right: refusals and warnings
histogram.py  statistics of a stream in fixed memory
collect.py    runs the model and fills the table
table.py      the table
"""
