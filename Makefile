# Two commands, nothing to do before: `make demo` and `make test`.
# A first call makes .venv and installs what it needs; a second goes straight to work.

PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check
PEERS_PIP := .peers/bin/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0
DEMO_ARGS ?=
TEST_ARGS ?=
WORKERS ?= 2

.PHONY: demo test lint format peers clean help

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

demo: .venv/.ready ## the whole road on the built-in world; DEMO_ARGS="--quick" for the short one
	.venv/bin/plaudit demo $(DEMO_ARGS)

test: lint ## the gate: format, lint, types, tests; TEST_ARGS="-k losses" for some of them
	.venv/bin/python -m pytest -q -n $(WORKERS) $(TEST_ARGS)

lint: .venv/.ready-to-test ## format, lint and types, checked
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy src tests benchmarks

format: .venv/.ready-to-test ## put the code into its standard form
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

peers: .peers/.ready ## other libraries beside ours, for the benchmarks against them
	@echo "made .peers; now: python -m benchmarks.reward_model"

clean: ## take away what was made, runs excepted
	rm -rf .venv .peers .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

%/.torch: # torch by itself first: an open range would take a build for GPUs, of gigabytes
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Plaudit needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $*
	$*/bin/python -m pip --disable-pip-version-check install --quiet "$(TORCH)"
	@touch $@

.venv/.ready: .venv/.torch pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

.venv/.ready-to-test: .venv/.torch pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e '.[test,lint]'
	@touch $@ .venv/.ready

.peers/.ready: .peers/.torch pyproject.toml constraints.txt constraints-peers.txt
	$(PEERS_PIP) install --quiet -c constraints.txt -c constraints-peers.txt -e '.[data]' trl
	@touch $@
