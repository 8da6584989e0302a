"""What an .mlpackage folder is made of, in one place.

Manifest.json                                   which item is the model, by identifier
Data/com.apple.CoreML/model.mlmodel             the specification: a protobuf message
Data/com.apple.CoreML/weights/weight.bin        constants of ten elements and more
"""

from __future__ import annotations

SUFFIX = ".mlpackage"
MANIFEST = "Manifest.json"
DATA = "Data"
AUTHOR = "com.apple.CoreML"
MODEL_ITEM = f"{AUTHOR}/model.mlmodel"
WEIGHTS_ITEM = f"{AUTHOR}/weights"
MODEL_FILE = f"{DATA}/{MODEL_ITEM}"
WEIGHTS_FILE = f"{DATA}/{WEIGHTS_ITEM}/weight.bin"

#: How a program names its weight file.
MODEL_PATH = "@model_path"

#: Oldest iOS → name of its opset in the program.
OPSETS = {15: "CoreML5", 16: "CoreML6", 17: "CoreML7", 18: "CoreML8"}

#: Metadata that the format itself has.
METADATA = ("shortDescription", "author", "license", "versionString")

#: User-defined metadata that we write; no key of the user begins so.
RESERVED_KEYS = "deploykit."
VERSION_KEY = f"{RESERVED_KEYS}version"
PRECISION_KEY = f"{RESERVED_KEYS}precision"
PREPROCESS_KEY = f"{RESERVED_KEYS}preprocess"

#: Names of the outputs that a classifier has besides the network's own.
LABEL_OUTPUT = "classLabel"
PROBABILITIES_OUTPUT = "classLabel_probs"

#: The variable that a classifier's probabilities are read from.
SHARES = "deploykit_label_shares"
