# One place for the commands that people and the gate (.ci/run) use. Needs make and Python >= 3.11;
# everything else is installed into $(VENV), once per change of pyproject.toml.
#   make test PYTHON=python3.12 VENV=/tmp/venv ARGS='-k nusa'

VENV ?= .venv
# The first Python on the path that is new enough; PYTHON=… overrides it.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; \
	done)
# Further arguments of the command that a target runs.
ARGS ?=

BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 $(BIN)/python -m pip

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo compare report docs parity studies notebook bench test chaos mutants fuzz lint types format clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | \
	while IFS='|' read -r target text; do printf '  %-14s %s\n' "$$target" "$$text"; done

demo: $(VENV)/.stamp-run  ## fine-tuning and NuSA-CL on the embedded benchmark (CPU, minutes)
	$(BIN)/clbench compare --benchmark mini --methods finetune,nusa --seeds 0 --matrices $(ARGS)

compare: $(VENV)/.stamp-run  ## make the runs of reports/mini and mini-variants that are missing (hours)
	$(BIN)/clbench sweep experiments/studies/mini-comparison.yaml --out reports/mini $(ARGS)
	$(BIN)/clbench sweep experiments/studies/mini-orders.yaml --out reports/mini-variants $(ARGS)
	$(BIN)/clbench sweep experiments/studies/mini-variants.yaml --out reports/mini-variants $(ARGS)
	@$(MAKE) --no-print-directory report ARGS=

report: $(VENV)/.stamp-run  ## build tables, figures, page and lock file of reports/ from the results
	$(BIN)/clbench report reports/mini/results --out reports/mini --figures --html \
		--compare all,finetune --claims mtil $(ARGS)
	$(BIN)/clbench report reports/mini/results --out reports/mini/short \
		--columns n,transfer,average,last,learned,forgetting,stored --sort average
	$(BIN)/clbench report reports/mini-variants/results --out reports/mini-variants --figures --html \
		--compare all,finetune
	$(BIN)/python -m clbench.report.embed README.md reports/mini/README.md \
		reports/mini-variants/README.md
	$(BIN)/python -m clbench.lock reports

docs: $(VENV)/.stamp-run  ## renew the tables in docs/settings.md, docs/methods and docs/parity.md
	$(BIN)/python -m clbench.cli.pages docs/settings.md docs/methods/*.md
	$(BIN)/python -m tests.parity

parity: $(VENV)/.stamp-dev  ## measure how close golden tensors are met and write docs/parity.md
	$(BIN)/python -m tests.parity --golden

studies: $(VENV)/.stamp-run  ## complete all studies and write their pages (hours; runs that are there are kept)
	@for name in $$($(BIN)/clbench study | cut -d: -f1); do \
		$(BIN)/clbench study $$name --out reports/studies/$$name --page docs/studies/$$name.md $(ARGS) || exit; \
	done
	$(BIN)/python -m clbench.report.embed README.md docs/studies/index.md

notebook: $(VENV)/.stamp-dev  ## execute docs/quickstart.ipynb and keep what it shows
	PYTHONWARNINGS='ignore:IProgress not found' $(BIN)/jupyter-execute --inplace docs/quickstart.ipynb

bench: $(VENV)/.stamp-run  ## measure speed, write docs/speed.md and docs/costs.md (hours; --only, --device)
	$(BIN)/python -m speed $(ARGS)

test: $(VENV)/.stamp-dev  ## run the tests (CPU, offline)
	$(BIN)/pytest $(ARGS)

chaos: $(VENV)/.stamp-dev  ## kill runs of every method at random and compare what comes out
	$(BIN)/python -m tests.chaos $(ARGS)

mutants: $(VENV)/.stamp-dev  ## put errors into the code that keeps results; the tests must notice
	$(BIN)/python -m tests.mutation $(ARGS)

fuzz: $(VENV)/.stamp-dev  ## feed 10,000 damaged inputs to every reader (nightly; docs/robustness.md)
	$(BIN)/python -m tests.fuzz --inputs 10000 --write docs/robustness.md $(ARGS)

lint: $(VENV)/.stamp-dev  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.stamp-dev  ## mend style and formatting where ruff can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# mypy does not follow the import hook of an editable install, so it is given an installed copy.
types: $(VENV)/.stamp-dev  ## check types
	@rm -rf build
	@$(PIP) install --quiet --no-deps --target build/typecheck .
	@cp -r speed build/typecheck/
	cd build/typecheck && "$(abspath $(BIN))/mypy" --config-file ../../pyproject.toml \
		--cache-dir ../../.mypy_cache -p clbench -p speed

clean:  ## remove the environment, builds and caches; runs/ and reports/ stay
	@if [ -e $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	rm -rf build dist *.egg-info .mutants.jsonl .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is written after the installation has succeeded, so an interrupted one is taken up
# again, and a finished one costs nothing.
$(VENV)/.stamp-run: pyproject.toml
	$(make-venv)
	@echo "Installing clbench into $(VENV) (PyTorch is large: the first time takes minutes) ..."
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml
	$(make-venv)
	@echo "Installing clbench with its developer tools into $(VENV)" \
		"(PyTorch is large: the first time takes minutes) ..."
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $(VENV)/.stamp-run $@

define make-venv
@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	python="$(PYTHON)"; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "clbench needs Python 3.11 or newer, which '$${python:-python3}' is not:" \
			"install it, or name one with make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	"$$python" -m venv "$(VENV)" || { \
		echo "'$$python -m venv' failed: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }; \
	}
endef
