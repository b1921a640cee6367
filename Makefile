# make demo and make test work from a bare checkout; each installs first what is missing.
#   PYTHON   the Python (3.10 to 3.13) that a new environment is made with
#   VENV     the environment: made if it is not there, installed into if it is
#   EXTRAS   what is installed beside the library, e.g. EXTRAS=test,infomap
#   ARGS     passed on to the program that the target runs
#   BENCH    the benchmarks that make bench runs

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
ARGS ?=
BENCH ?= benchmarks/label_engine.py

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
FASTREID := fastreid==1.4.0
# Stamps: a step is done again only when a file that it depends on has changed.
REQUIRED := $(VENV)/.unreid-required
INSTALLED := $(VENV)/.unreid-installed-$(EXTRAS)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs bench chaos fuzz soak clean

help:
	@echo "make install   environment in $(VENV), requirements, unreid and its kernels"
	@echo "make demo      generate a small dataset, train on it without labels, print before and after"
	@echo "make test      all tests, in two processes"
	@echo "make lint      ruff and mypy"
	@echo "make docs      the site of docs/ into build/site; a warning is an error"
	@echo "make bench     the benchmarks behind the README's claims"
	@echo "make chaos     kills trainings at random moments; each must end as if nothing had happened"
	@echo "make fuzz      360 malicious or damaged inputs, each through the command that reads it"
	@echo "make soak      50 label refreshes: memory, open files and worker processes stay"
	@echo "make clean     remove what was built; $(VENV) and runs/ stay"

install: $(INSTALLED)
	@:

$(PY):
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 14) \
	  else "unreid needs Python 3.10 to 3.13, found %d.%d; name another: make PYTHON=..." % v)'
	@echo "making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv "$(VENV)"

# fastreid pins torch 1.13.1, so it comes without its dependencies; requirements.txt has them.
$(REQUIRED): requirements.txt | $(PY)
	@echo "installing requirements.txt and $(FASTREID) into $(VENV) (the first time: minutes)"
	@$(PIP) install -r requirements.txt
	@$(PIP) install --no-deps $(FASTREID)
	@touch "$@"

$(INSTALLED): $(REQUIRED) pyproject.toml setup.py $(wildcard unreid/kernels/*.pyx unreid/kernels/*.pxd)
	@echo "installing unreid[$(EXTRAS)] and building its kernels"
	@$(PIP) install -e ".[$(EXTRAS)]"
	@touch "$@"

demo: install
	@$(PY) tools/demo.py $(ARGS)

test: install
	@$(PY) -m pytest --numprocesses 2 --dist worksteal $(ARGS)

lint: install
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m tests.prose.check

docs:
	@$(MAKE) --no-print-directory install EXTRAS="$(if $(findstring docs,$(EXTRAS)),$(EXTRAS),docs)"
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict
	@echo "build/site/index.html"

bench: install
	@set -e; for script in $(BENCH); do $(PY) "$$script" $(ARGS); done

fuzz: install
	@OMP_NUM_THREADS=1 $(PY) -m tests.untrusted_input.fuzz $(ARGS)

soak: install
	@OMP_NUM_THREADS=1 $(PY) benchmarks/soak.py $(ARGS)

chaos: install
	@OMP_NUM_THREADS=1 $(PY) -m tests.reliability.chaos $(ARGS)

clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -rf unreid/kernels/*.so unreid/kernels/*.c unreid/kernels/*.cpp unreid/kernels/avx2 unreid/kernels/avx512
	@rm -f "$(VENV)"/.unreid-installed-*
	@find unreid projects tools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
