# Two commands for a fresh machine that has Python 3.11+ and git; everything else is set up here.
#   make demo    sets everything up and runs the main job on the committed example
#   make test    sets everything up and passes the tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test check lint types bench clean

demo: $(STAMP)
	$(BIN)/deploykit convert examples/ghostnet.pt --to tflite --fp32 --int8 --out build/ghostnet
	$(BIN)/deploykit evaluate build/ghostnet --data examples/fashion_mnist_sample.npz \
		--source examples/ghostnet.pt

test: $(STAMP) check
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

check: lint types

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/convert.py
	$(BIN)/python benchmarks/latency.py

# An environment of its own, made once and again whenever the requirements change.
$(STAMP): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'deploykit needs Python 3.11 or later')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist
