# Every target makes what it needs: a virtual environment in .venv, filled on first use.
# On a fresh machine only Python and make have to be there.
PYTHON ?= python3
RUN = .venv/bin/python
READY = .venv/ready

.PHONY: help book test site-test lab export notebooks toy check bench

help:
	@echo "make book       the book, in _build/html/index.html"
	@echo "make test       the tests and every chapter"
	@echo "make site-test  the built site, in headless Chromium"
	@echo "make lab        JupyterLab on the chapters"
	@echo "make export     captionlib/ from the chapters"
	@echo "make notebooks  execute the chapters and store their outputs"
	@echo "make toy        retrain the packaged toy captioner"
	@echo "make check      is everything in sync?"
	@echo "make bench      the benchmarks"

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[book,notebooks,test]"
	@touch $@

book: $(READY)
	$(RUN) -m tools.book

test: $(READY)
	$(RUN) -m tools.test

site-test: book
	$(RUN) -m pytest -q site_tests

lab: $(READY)
	.venv/bin/jupyter lab --notebook-dir=notebooks

export: $(READY)
	$(RUN) -m tools.export

notebooks: export
	$(RUN) -m tools.notebooks

toy: $(READY)
	$(RUN) -m tools.toy

check: $(READY)
	$(RUN) -m tools.check

bench: $(READY)
	$(RUN) -m benchmarks
