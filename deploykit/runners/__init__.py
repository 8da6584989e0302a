"""Runners: runtimes with a model loaded, each in a child process with a time limit.

`base` holds the contracts, `registry` the list of what is installed, `process` the parent's side
and `child` the child's, `protocol` what they say to each other, `cpu` the CPU in words.
`onnxruntime_backend`, `torch_backend` and `tensorflow_backend` are the runtimes that the core
drives itself. `environments` makes environments for runtimes that cannot be installed beside
deploykit, and `foreign_child` starts a child in one.
"""
