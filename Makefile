# Two commands do everything: `make search` and `make test`. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: search test quick lint bench clean
.DELETE_ON_ERROR:

search: $(VENV)/.core
	$(BIN)/leanfield search --data hard-digits --max-params 50k --workers 2

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python -m pytest --nbmake notebooks

quick: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks sweep

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up $(VENV) (a minute or two the first time)"
	$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up $(VENV) with the test tools (a minute or two the first time)"
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) build *.egg-info
