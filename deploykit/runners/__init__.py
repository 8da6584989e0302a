"""Runners: runtimes with a model loaded, each in a child process with a time limit.

`base` holds the contracts, `registry` the list of what is installed, `process` the parent's side
and `child` the child's, `protocol` what they say to each other, `cpu` the CPU in words, and
`onnxruntime_backend` and `torch_backend` the two runtimes that the core drives itself.
"""
