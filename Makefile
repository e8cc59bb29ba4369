# Two commands set everything up on a fresh machine: `make demo` and `make test`.
# The constraints file pins what is installed; pyproject.toml keeps the honest ranges.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test coverage agreement families lint bench wheel clean

demo: $(INSTALLED)
	$(BIN)/lossprobe demo -o lossprobe-demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(COVERAGE)

# The same tests, and which lines they reach: half as long again.
coverage:
	$(MAKE) test COVERAGE="--cov --cov-report=term"

# The same numbers as the real programs that the package index has, in an environment of their own.
agreement: $(INSTALLED)
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[test,peers]"
	$(VENV)-peers/bin/python -m pytest tests/agreement

# Every causal family of the installed transformers against transformers itself; under half an hour.
families: $(INSTALLED)
	$(BIN)/python tests/families/sweep.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Speed against the bare forward pass, on three model shapes; takes about half an hour.
bench: $(INSTALLED)
	$(BIN)/python tests/benchmarks/speed.py

# The built wheel, in an environment of its own: what users install is what is tested.
wheel: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv --clear $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd $(VENV)-wheel && bin/lossprobe --help && bin/lossprobe doctor && bin/lossprobe demo -o demo

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-wheel $(VENV)-peers dist build lossprobe-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
