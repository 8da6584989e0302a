"""The graph: what its ops are, how it is read, edited and printed.

The graph itself is an `onnx_ir.Model`; nothing here is a representation of our own.

    ops          the canonical set, the only ops that a target sees
    functions    the ops of the ``deploykit`` domain, with their standard-op bodies
    provenance   where in the source a node comes from
    reading      shapes, attributes and constants of a node, in plain Python
    editing      new nodes and constants, replaced values: names survive
    skeleton     a model as bytes without its weights, for libraries in C++
    evaluate     nodes with constant inputs, computed with numpy
    text         a graph and the notes of its passes, for people
"""
