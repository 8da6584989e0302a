# Two commands for a fresh machine that has Python 3.11+ and git; everything else is set up here.
#   make demo    sets everything up and runs the main job on the committed example
#   make test    sets everything up and passes the tests
# And a third, since TensorFlow is 1.4 GB: make test-tensorflow passes the tests that need it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-tensorflow check kills lint types fuzz bench oracle clean

demo: $(STAMP)
	$(BIN)/deploykit convert examples/ghostnet.pt --to tflite --fp32 --int8 --out build/ghostnet
	$(BIN)/deploykit evaluate build/ghostnet --data examples/fashion_mnist_sample.npz \
		--source examples/ghostnet.pt

test: $(STAMP) check
	$(BIN)/python -m pytest -n 2 --dist loadfile -q --hypothesis-profile=repeatable

test-tensorflow: $(VENV)-tensorflow/.installed
	$(VENV)-tensorflow/bin/python -m pytest -q runtime_tests/test_tensorflow.py \
		deploykit/sources/keras_weights_test.py

check: lint types

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# 300 kills at random times of a process that writes bundles.
kills: $(STAMP)
	$(BIN)/python tests/test_kills.py 300 1

# make fuzz SECONDS=3600: odd files of every format through the real entry points; prints a table.
SECONDS ?= 120
fuzz: $(STAMP)
	$(BIN)/python -m fuzz.run --seconds $(SECONDS)

bench: $(STAMP)
	$(BIN)/python benchmarks/convert.py
	$(BIN)/python benchmarks/latency.py

# Byte by byte: what HEAD writes against what BASE wrote (NAMES="ghostnet" for some families only).
oracle: $(STAMP)
	$(BIN)/python runtime_tests/oracle/compare_commits.py $(BASE) $(NAMES) $(if $(NAMES),,--full-size)

# A separate environment, made once and again whenever the requirements change.
$(STAMP): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'deploykit needs Python 3.11 or later')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

$(VENV)-tensorflow/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-tensorflow
	$(VENV)-tensorflow/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-tensorflow/bin/python -m pip install --quiet -e '.[tflite,tensorflow]' pytest pytest-timeout hypothesis
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-tensorflow build dist
