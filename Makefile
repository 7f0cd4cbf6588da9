# `make demo` and `make test` set up what they need on a fresh machine with Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
INPUTS ?= 20000
RUNS ?= 200

.PHONY: demo test test-lowest check slow zoo fuzz storm docs bench verify clean

demo: .venv/installed
	$(BIN)/latentia demo

test: .venv/installed check
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist worksteal

# every package at the lowest version that pyproject.toml declares, torch as in constraints.txt
test-lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(PYTHON) benchmarks/lowest.py constraints.txt > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/lowest.txt torch
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-lowest/lowest.txt -e '.[test]' pytest-xdist
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -n auto -W ignore::DeprecationWarning

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/structure.py --check

bench: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/vae_training.py $(ARGS)

docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

fuzz: .venv/installed
	$(BIN)/python benchmarks/fuzz.py -n $(INPUTS)

storm: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/storm.py -n $(RUNS) --starts 40

zoo: .venv/installed
	$(BIN)/python benchmarks/zoo.py --out dist/zoo

slow: .venv/installed
	$(BIN)/pytest -q -m slow

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "latentia needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info
