"""Passes: each brings the graph closer to what a target lowers, and says what it did.

One pass a file, named as its class; `base` has the contract, `pipeline` the order:

    exported    ──inline_functions, fold_constants, simplify_onnx, infer_shapes──> simplified
    simplified  ──canonicalize, fold_*, fuse_*, eliminate_identities, remove_unused──> fused
"""
