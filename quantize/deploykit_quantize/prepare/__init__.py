"""Preparing: a float graph that computes the same and loses less when it is quantized.

channel_classes.py       which channels of which values must be scaled alike
scale_channels.py        factors of channels, moved into the weights around them
equalize_activations.py  factors that let every channel fill its tensor's one scale
equalize_layers.py       factors that balance the weights of neighbouring layers
correct_bias.py          biases that make up for the mean error of each layer
"""
