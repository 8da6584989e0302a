"""Sources: what ``convert`` accepts, and how each becomes the exported stage of a `Model`.

detect          what a file holds, by its content, without importing torch
load            the door: path or module in memory → `deploykit.model.Model`
checkpoint      state dicts, deploykit's and timm's checkpoints
architecture    ``timm/NAME``, ``torchvision/NAME``, ``deploykit/NAME``, ``package.module:callable``
weights         weights into a module, and what does not fit
torch_export    a torch program → ONNX, in memory
onnx_file       an .onnx file → ONNX, checked
tensorflow_*    .keras files and SavedModels → ONNX, in a process of TensorFlow's own
keras_archive   what a .keras file would run; saved_model_scan: what a SavedModel's graph would do
reference       the same source again, as a function, for the ``torch`` runner
"""
