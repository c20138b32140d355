# Every target makes what it needs: a virtual environment in .venv, filled on first use.
# On a fresh machine only Python and make have to be there.
PYTHON ?= python3
RUN = .venv/bin/python
READY = .venv/ready
JOBS ?= 2

.PHONY: help book sphinx pdf zip test site-test lab-test colab-test canary mutants kills twice long-test lab \
    export notebooks toy wasm check bench

help:
	@echo "make book       the book, in _build/html/index.html"
	@echo "make sphinx     the same pages by plain Sphinx, in _build/sphinx/index.html"
	@echo "make pdf        the book on paper, _build/captionlib.pdf, by headless Chromium"
	@echo "make zip        the chapters' notebooks, _build/html/notebooks.zip"
	@echo "make test       the tests and every chapter"
	@echo "make long-test a thousand odd inputs, benchmarks, experiments, the card's figures"
	@echo "make kills      a training killed twenty times, and resumed to the same weights"
	@echo "make twice      every cell of every chapter twice, and again from the top"
	@echo "make site-test  the built site, and a chapter in JupyterLab, in headless Chromium"
	@echo "make lab-test   every chapter in JupyterLab, in headless Chromium"
	@echo "make colab-test every chapter alone, set up from a repository's address"
	@echo "make canary     plant errors, and see every check turn red"
	@echo "make mutants    200 small changes to the chapters' modules, which tests must notice"
	@echo "make lab        JupyterLab on the chapters"
	@echo "make export     captionlib/ from the chapters"
	@echo "make notebooks  execute the chapters and store their outputs"
	@echo "make toy        retrain the packaged toy captioner"
	@echo "make wasm       the page's engine from its C source, by clang"
	@echo "make check      is everything in sync?"
	@echo "make bench      the benchmarks; with STORE=1 for the book"

# Without a GPU, torch's processor build where a configured index has one; PyPI has none for Linux.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(RUN) tools/torch_build.py | xargs -r $(RUN) -m pip install --quiet --disable-pip-version-check
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[book,notebooks,onnx,test]"
	@touch $@

book: $(READY)
	$(RUN) -m tools.book

sphinx: $(READY)
	$(RUN) -m tools.book --sphinx

pdf: $(READY)
	$(RUN) -m tools.pdf

zip: $(READY)
	$(RUN) -m tools.book --zip

# One thread for each process: two that share two cores slow each other down otherwise.
test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(RUN) -m pytest -q -n $(JOBS)
	$(RUN) -m pytest -q -n $(JOBS) --dist loadfile --nbval --nbval-current-env \
	    --nbval-sanitize-with tests/nbval.cfg --nbval-cell-timeout 900 notebooks

long-test: export OMP_NUM_THREADS = 1
long-test: $(READY)
	$(RUN) -m pytest -q -n $(JOBS) -m long

kills: export OMP_NUM_THREADS = 1
kills: $(READY)
	$(RUN) -m pytest -q -s -m kills tests/test_resume.py tests/test_concurrent.py

twice: export OMP_NUM_THREADS = 1
twice: $(READY)
	$(RUN) -m tools.twice

site-test: book
	$(RUN) -m pytest -q -n $(JOBS) -m site tests/test_site*.py tests/test_lab.py

lab-test: $(READY)
	$(RUN) -m pytest -q -m lab tests/test_lab.py

colab-test: $(READY)
	$(RUN) -m tools.colab

canary: book
	$(RUN) -m tools.canary --jobs $(JOBS)

# SEED=... draws others; ONLY=metrics draws from one module.
mutants: $(READY)
	$(RUN) -m tools.mutants $(ONLY) --seed $(or $(SEED),0) --jobs $(JOBS)

lab: $(READY)
	.venv/bin/jupyter lab --notebook-dir=notebooks

export: $(READY)
	$(RUN) -m tools.export

notebooks: export
	$(RUN) -m tools.notebooks

toy: $(READY)
	$(RUN) -m tools.toy

# Needs clang and lld: apt-get install clang lld
ENGINE = captionlib/page/engine
wasm: $(ENGINE).wasm
$(ENGINE).wasm: $(ENGINE).c
	clang --target=wasm32 -O3 -msimd128 -ffreestanding -nostdlib -Wall -Wextra \
	    -Wl,--no-entry -Wl,--export=__heap_base -o $@ $<

check: $(READY)
	$(RUN) -m tools.check

bench: $(READY)
	$(RUN) -m benchmarks $(if $(STORE),--store)
