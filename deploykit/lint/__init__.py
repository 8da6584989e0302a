"""What makes a network slower than its FLOPs say, layer by layer, before anything is run.

One rule a file. The four guidelines of efficient network design are Ma et al. 2018 (ShuffleNet V2,
section 2); the others are what a converter knows of phones' runtimes.
"""

from deploykit.lint.finding import Finding, LintReport, Severity
from deploykit.lint.lint_model import lint_model

__all__ = ["Finding", "LintReport", "Severity", "lint_model"]
