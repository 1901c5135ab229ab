# make book · make test · make lint · make clean    (each sets up .venv first; make venv does only that)
# make test-oldest: the fast tests with the lowest versions that pyproject.toml allows, in .venv-oldest
#
#   make book                                        smoke preset: drawn polyps, a few minutes on two cores
#   make book PRESET=laptop DATA=path/to/polyps      real images
#   make book PRESET=publish RUNS=runs               networks that find drawn polyps, an hour on two cores
#   make book RUNS=runs                              keep (and reuse) the trained networks in runs/
#   make test JOBS=1                                 the tests one after another (else two at once)
#   make pdf                                         the last build on paper, printed by Chromium
#   make repository URL=https://github.com/o/n       tell the pages and the chapters where the book lives (REVISION=v1: a tag)
#
# Without RUNS the networks go to _build/runs, and `make clean` removes them with the rest of _build.

PYTHON ?= python3
# Plain "=", so that only the command line sets these, never a stray variable of the shell.
PRESET = smoke
DATA =
RUNS =
SEED = 0
URL =
REVISION = main
JOBS = 2

BIN := .venv/bin
READY := .venv/.ready
OLDEST := .venv-oldest
WEB_RUNTIME := onnxruntime-web@1.30.0

# Another environment may be active; what it exports must not reach ours.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV CONDA_PREFIX PIP_USER PIP_TARGET PIP_PREFIX

.PHONY: book pdf test test-oldest lint clean venv repository
.DEFAULT_GOAL := book

book: $(READY)
	$(BIN)/kdas book --preset "$(PRESET)" --data-root "$(DATA)" --runs-dir "$(RUNS)" --seed "$(SEED)"

pdf: $(READY)
	$(BIN)/kdas book pdf

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS)

test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -n $(JOBS) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/structure.py
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/nbstripout --verify --keep-id book/*.ipynb
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

repository: $(READY)
	$(BIN)/python -m kdas_book.colab "$(URL)" "$(REVISION)"

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "The versions in constraints.txt need Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,test,laptop,deploy,video]"
	@# KaTeX's style sheet, fonts and script, which no package has alone: of a plug-in for a CMS, and without that CMS.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps djangocms-katex
	@# What runs the student in a reader's browser; where npm or its registry is not there, the page shows recorded masks instead.
	@mkdir -p .venv/share/onnxruntime-web
	@if command -v npm >/dev/null; then cd .venv/share && npm pack --silent $(WEB_RUNTIME) >/dev/null && \
	  tar -xzf onnxruntime-web-*.tgz --strip-components=2 -C onnxruntime-web package/dist/ort.wasm.min.mjs \
	    package/dist/ort-wasm-simd-threaded.mjs package/dist/ort-wasm-simd-threaded.wasm && rm onnxruntime-web-*.tgz || \
	  echo "onnxruntime-web could not be fetched; the book is built without the network in the browser." >&2; fi
	@touch $(READY)

$(OLDEST)/.ready: pyproject.toml .ci/oldest.py
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python .ci/oldest.py > $(OLDEST)/oldest.txt
	@# Without "deploy", whose exporters need a newer PyTorch than the rest; its tests are skipped there.
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/oldest.txt -e ".[book,test,laptop,video]"
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps djangocms-katex
	@touch $@

clean:
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find kdas_core kdas_book tests book -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
