"""The report: `model` is the frozen data; `terminal` and `json` are views of it."""
