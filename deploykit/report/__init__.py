"""The views of what was measured: terminal, JSON, HTML. The data are in `deploykit.verdict`."""
