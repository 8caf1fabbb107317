# A fresh machine needs Python 3.11, pip and make.
#
#   make demo     install into .venv, and render demo.mp4 with the embedded model
#   make test     install what the checks need, then lint, types and all tests
#   make          only install
#   make clean    remove .venv, caches and what was rendered
#
#   PYTHON=...         which Python makes .venv
#   TORCH_INDEX=URL    a package index that holds another build of torch, such as one for CUDA

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
# Which build is installed is remembered by the name of its index; without TORCH_INDEX, the one that is there will do.
ANY_TORCH := $(firstword $(wildcard $(VENV)/.torch*) $(VENV)/.torch)
TORCH_STAMP := $(if $(TORCH_INDEX),$(VENV)/.torch-$(notdir $(patsubst %/,%,$(TORCH_INDEX))),$(ANY_TORCH))
BASE := $(VENV)/.base
DEV := $(VENV)/.dev

DEMO := "a red apple" "a red heart" "a star" "a fox" "a lion" "a tiger face"

.PHONY: install demo test lint types tests clean

install: $(BASE)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Segue needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# torch comes first and by exact version, so that no dependency drags in another build of it. An index of torch builds
# has other versions of what torch needs than the constraints name; the next rule puts those right.
$(TORCH_STAMP): constraints.txt | $(BIN)/python
	$(PIP) install $(if $(TORCH_INDEX),--force-reinstall --index-url $(TORCH_INDEX),-c constraints.txt) $(TORCH)
	rm -f $(VENV)/.torch*
	touch $@

$(BASE): pyproject.toml constraints.txt $(TORCH_STAMP)
	$(PIP) install -c constraints.txt -e .
	touch $@

$(DEV): $(BASE)
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(BASE)
	$(BIN)/segue transition $(DEMO) --seed 8 -o demo.mp4 --seconds 10 --fps 24

test: lint types tests

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/pyright

# Small tensors on several threads mostly wait for each other.
tests: export OMP_NUM_THREADS = 1
tests: export OMP_WAIT_POLICY = passive
tests: $(DEV)
	$(BIN)/pytest -q --durations=10 --numprocesses=2 --dist=worksteal

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist demo.mp4 demo.json
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
