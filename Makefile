# `make` lists the targets. Settings, given as NAME=value:
PYTHON ?= python3
VENV ?= .venv
FAMILY ?= onedl
TORCH ?= torch==2.13.0
USE_CURRENT ?=
# For `make quickstart`: a folder of your own data, and where to write.
DATA ?=
WORK_DIR ?=
# For `make test-mmdet`: a source tree of mmdet with its tests; fetched where not given.
SOURCE ?=
# For `make test-range`: 1 for the oldest packages of the ranges.
OLDEST ?=
# More arguments: for pytest in `make test`, for tools/quickstart.py in `make quickstart` (such as --image-size 320), for
# tools/demo.py in `make demo` (such as --checkpoint FILE).
ARGS ?=
EXTRAS ?= quickstart,convert,test,dev

export PYTHON VENV FAMILY TORCH USE_CURRENT DATA WORK_DIR SOURCE EXTRAS

ifeq ($(USE_CURRENT),1)
RUN := $(PYTHON)
else
RUN := $(VENV)/bin/python
endif

SETUP := @tools/setup_env.sh
COVERAGE := --cov=mmdet_iouquery --cov=iouquery_runtime --cov-report=term-missing:skip-covered
TEST_EXTRAS := quickstart,convert,export,export-dynamo,openvino,quantize,hub,scale,test
# a file of tests is run by one worker, as its tests share what they build; tests/conftest.py has the longest come first;
# a worker that dies ends the run, which would otherwise wait for ever for what a new one of this kind is not given
PARALLEL := -n logical --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# what these tests hold is the same whatever mmdet is installed; with the second family they are left out
WITH_TORCH_ALONE := tests/test_core tests/test_cpu tests/test_runtime tests/test_jobs tests/test_fuzz \
    tests/test_long/test_jobs_killed.py \
    $(addprefix tests/test_,command.py configs.py docs.py laws.py layers.py names.py one_door.py own_parts.py packaging.py pages.py) \
    $(addprefix tests/test_,serve_example.py setup_env.py site_reference.py troubleshooting.py) \
    $(addprefix tests/test_apps/test_,analyze benchmark calibrate compare configs data predict train detector.py) \
    $(addprefix tests/test_deploy/test_,compile.py export.py graph.py precision.py prepare.py quantize.py triton_repository.py) \
    $(addprefix tests/test_models/test_,batch_numbers.py cost.py family.py golden.py gradients.py half_precision.py tracing.py) \
    $(wildcard tests/test_checkpoints/test_convert_*.py) tests/test_checkpoints/test_round_trips.py

# what any version of Python, torch and mmdet has a say in
IN_RANGE := $(addprefix tests/test_core/test_,deformable_attention.py imports.py selection.py matching.py denoising.py) \
    $(addprefix tests/test_models/test_,golden.py three_steps.py half_precision.py) \
    $(addprefix tests/test_,evaluation compat.py configs.py one_door.py checkpoints/test_files.py engine/test_repeatable.py)

.DEFAULT_GOAL := help
.PHONY: help setup setup-openmmlab environments quickstart demo test coverage test-openmmlab test-long test-mmdet test-ops \
    test-demo test-range gpu lint docs docs-serve costs doctor wheel release clean distclean

help: ## show this list
	@echo 'make TARGET [NAME=value ...]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo 'settings: PYTHON=$(PYTHON) VENV=$(VENV) FAMILY=$(FAMILY) TORCH=$(TORCH) USE_CURRENT=$(USE_CURRENT)'

setup: ## make .venv with torch, the package family and this package (USE_CURRENT=1: the current environment)
	$(SETUP)

setup-openmmlab:
	@VENV=.venv-openmmlab FAMILY=openmmlab USE_CURRENT= EXTRAS=quickstart,convert,export,hub,test tools/setup_env.sh

environments: EXTRAS := $(TEST_EXTRAS),test-triton,dev,docs
environments: setup setup-openmmlab ## make .venv and .venv-openmmlab with what all tests, lint and docs need (-j2: at once)

quickstart: EXTRAS := quickstart,convert
quickstart: ## train on a small sample set, or on DATA=/path; results in WORK_DIR=/path
	$(SETUP)
	@# exec: a signal to make reaches the program itself, not a shell that leaves it running
	@exec "$(RUN)" tools/quickstart.py $${DATA:+--data "$$DATA"} $${WORK_DIR:+--work-dir "$$WORK_DIR"} $(ARGS)

demo: EXTRAS := quickstart,convert,demo
demo: ## serve a page to try a checkpoint on images, at http://127.0.0.1:7860
	$(SETUP)
	@exec "$(RUN)" tools/demo.py $(ARGS)

test: EXTRAS := $(TEST_EXTRAS),test-triton
test: ## run the tests
	$(SETUP)
	@"$(RUN)" -m pytest $(PARALLEL) $(ARGS)

coverage: EXTRAS := $(TEST_EXTRAS),test-triton
coverage: ## run the tests and print their coverage, which takes a third more time
	$(SETUP)
	@"$(RUN)" -m pytest $(PARALLEL) $(COVERAGE) $(ARGS)

test-openmmlab: setup-openmmlab ## run the tests with the openmmlab family, in .venv-openmmlab
	@.venv-openmmlab/bin/python -m pytest $(PARALLEL) $(WITH_TORCH_ALONE:%=--ignore=%) $(ARGS)

test-long: EXTRAS := $(TEST_EXTRAS)
test-long: ## run what takes too long for every day: 50 kills, 10,000 fuzzed cases and more, memory, overfitting
	$(SETUP)
	@FAULT_KILLS=50 FUZZ_CASES=700 LONG_TESTS=1 "$(RUN)" -m pytest $(PARALLEL) --timeout 0 \
	    tests/test_fuzz tests/test_long tests/test_engine/test_faults_kills.py $(ARGS)

test-mmdet: EXTRAS := $(TEST_EXTRAS)
test-mmdet: ## run mmdet's own tests with this package imported, and on the adapters (SOURCE=/path/to/mmdet/tree)
	$(SETUP)
	@"$(RUN)" tools/mmdet_tests.py $${SOURCE:+--source "$$SOURCE"} $(ARGS)
	@"$(RUN)" tools/mmdet_tests.py $${SOURCE:+--source "$$SOURCE"} --adapters $(ARGS)

test-ops: ## build mmcv's operators in .venv-ops (minutes) and run the detectors that call them
	@VENV=.venv-ops FAMILY=onedl USE_CURRENT= EXTRAS=$(TEST_EXTRAS) tools/setup_env.sh
	@if ! .venv-ops/bin/python -c 'import torch, mmcv._ext' 2> /dev/null; then \
	    .venv-ops/bin/python -m pip install --quiet 'setuptools<81' wheel ninja; \
	    PATH="$(CURDIR)/.venv-ops/bin:$$PATH" sh -c "$$(.venv-ops/bin/python -c \
	        "from mmdet_iouquery.compat import compiled_ops_line; print(compiled_ops_line('onedl'))")"; \
	fi
	@.venv-ops/bin/python -m pytest $(PARALLEL) tests/test_cells.py tests/test_models/test_hosts $(ARGS)

test-demo: EXTRAS := $(TEST_EXTRAS),demo,test-demo
test-demo: ## test the page of `make demo` in a headless Chromium, if there is one (Debian: apt install chromium-driver)
	$(SETUP)
	@"$(RUN)" -m pytest tests/test_apps/test_demo $(ARGS)

test-range: EXTRAS := quickstart,convert,export,test
test-range: ## run what tells whether other versions will do: PYTHON=, TORCH=, FAMILY=, VENV=; OLDEST=1: the oldest packages
	$(SETUP)
	@if [ "$(OLDEST)" = 1 ]; then "$(RUN)" -m pip install -qq $$("$(RUN)" .ci/oldest.py $(FAMILY)); fi
	@"$(RUN)" -m pytest $(PARALLEL) $(IN_RANGE) $(ARGS)

gpu: ## check on a CUDA machine what only it can show, in eight minutes; sets nothing up (ARGS=--list, "ARGS=--wheels DIR")
	@exec "$(RUN)" tests/gpu_checks $(ARGS)

lint: EXTRAS := dev
lint: ## check style and types, and by its schemas what GitHub reads
	$(SETUP)
	@"$(RUN)" -m ruff check .
	@"$(RUN)" -m ruff format --check .
	@"$(RUN)" -m mypy
	@"$(RUN)" -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@"$(RUN)" -m check_jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	@"$(RUN)" -m check_jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

docs docs-serve: EXTRAS := docs
docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: ## build the documentation's site into site/; a dead link or an undocumented public name is an error
	$(SETUP)
	@rm -rf build/site && "$(RUN)" -m mkdocs build --strict --quiet --site-dir build/site
	@rm -rf site && mv build/site site # what was there stays until the new one is whole
	@echo 'site/index.html; its search works under make docs-serve'

costs: ## count parameters and FLOPs of configs that are new (ARGS=--all: of all) into configs/costs.json
	$(SETUP)
	@"$(RUN)" docs/costs.py $(ARGS)

docs-serve: ## serve it at http://127.0.0.1:8000, built anew when a page changes
	$(SETUP)
	@echo 'http://127.0.0.1:8000, once it is built; Ctrl-C ends it'
	@exec "$(RUN)" -m mkdocs serve --quiet $(ARGS)

doctor: EXTRAS := quickstart,convert
doctor: ## say what is installed, what is missing and what will be slow
	$(SETUP)
	@"$(RUN)" -m mmdet_iouquery.doctor

wheel: ## build a wheel into dist/
	$(SETUP)
	@"$(RUN)" -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

release: EXTRAS := quickstart,convert,release
release: ## build, check and try the wheel and the sdist, and print the lines that publish them
	$(SETUP)
	@PYTHON="$(RUN)" .ci/release

clean: ## remove build products and caches
	rm -rf build dist site *.egg-info .coverage htmlcov .pytest_cache .mypy_cache .ruff_cache
	find mmdet_iouquery iouquery_runtime tests tools configs docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environments too
	rm -rf .venv .venv-openmmlab .venv-ops
