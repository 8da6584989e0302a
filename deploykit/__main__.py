"""``python -m deploykit``."""

import os
import sys

# -m puts the current folder first, in which a file such as numpy.py may lie beside the user's
# model. It stays where deploykit itself is imported from it.
if not sys.flags.safe_path and os.path.dirname(os.path.dirname(__file__)) != sys.path[0]:  # noqa: PTH120
    del sys.path[0]

from deploykit.cli import main

sys.exit(main())
