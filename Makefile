# Two commands do everything: `make run` shows what altmap is for, `make test` checks all of it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A Debian without python3-venv makes an environment without pip; its own pip then fills it.
PIP = $(shell $(BIN)/python -m pip --version >/dev/null 2>&1 && echo $(BIN)/python -m pip || echo $(PYTHON) -m pip --python $(BIN)/python)
PIP_INSTALL = PIP_DISABLE_PIP_VERSION_CHECK=1 $(PIP) install --quiet
# An index may not offer a pinned version, yet or any more: then the versions that it offers are used.
install = $(PIP_INSTALL) --constraint constraints.txt --editable '.[$(1)]' || { \
	echo "constraints.txt cannot be met here: installing the versions that the index offers" >&2; \
	$(PIP_INSTALL) --editable '.[$(1)]'; }
RUN_EXTRAS := host,lab,report,sweep,cluster,mount,vm
DEV_EXTRAS := $(RUN_EXTRAS),docs,dev
BENCH_EXTRAS := $(DEV_EXTRAS),bench
MUTANTS_EXTRAS := $(DEV_EXTRAS),mutants
# Modules and rewritten tests are compiled once, not by each process of a test run.
unexport PYTHONDONTWRITEBYTECODE
# Guests that run side by side in the lab tests; each takes one core and half a GiB.
GUESTS ?= 2
# Programs and Debian's packages of them.
QEMUS := qemu-system-x86_64:qemu-system-x86 qemu-system-ppc64:qemu-system-ppc \
	qemu-system-aarch64:qemu-system-arm qemu-system-s390x:qemu-system-s390x
SCENARIOS := scenarios/hyperv-64MiB-first-half.toml scenarios/hyperv-64MiB-second-half.toml \
	scenarios/dimm-1GiB.toml

# Programs that act on a mounted machine, and FUSE to mount it.
LIVE_TOOLS := fusermount3:fuse3 numactl:numactl daxctl:daxctl bc:bc \
	prometheus-node-exporter:prometheus-node-exporter

.PHONY: run check test conformance lab-tools browser-tools live-tools docs picture bench \
	mutants coverage oldest fuzz man dist format clean

run: $(VENV)/run  ## three scenarios under two memmap policies, on the model
	@rm -rf build/run
	@echo "Two memmap policies, where Hyper-V backs half of a section, and for a DIMM:"
	@$(BIN)/altmap run $(SCENARIOS) --policy rfc-2018 --policy opt-in --summary --export build/run
	@echo
	@echo "Next: $(BIN)/altmap run $(lastword $(SCENARIOS))  # each step in a table"
	@echo "      $(BIN)/altmap help  # all commands; first steps: docs/start.md"
	@echo "      make test  # compares the model with real kernels in QEMU"

check: $(VENV)/dev  ## lint, types, and every test that needs no kernel, no browser and little time
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not lab and not browser and not slow"

test: lab-tools browser-tools live-tools check  ## everything, the lab included
	$(BIN)/pytest -m "slow and not lab and not browser" -rs
	$(BIN)/pytest -m "hypothesis and not lab and not browser" --hypothesis-profile=thorough
	$(BIN)/pytest -m "lab or browser" -rs --numprocesses $(GUESTS)

docs: $(VENV)/dev  ## the documentation as a site, in build/site; nothing is fetched
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Next: $(PYTHON) -m http.server --bind 127.0.0.1 --directory build/site  # search needs a server"

picture: $(VENV)/dev  ## docs/hyperv.svg, and the other pages that are made from the code
	$(BIN)/python docs/generate.py

conformance: lab-tools  ## every scenario on every real kernel there is, as a page of the docs
	$(BIN)/altmap conform tests/conformance.toml --slow -j $(GUESTS) --rows build/conformance.jsonl \
		-o docs/conformance.md; \
	status=$$?; [ $$status = 2 ] || rm -f build/conformance.jsonl; exit $$status

bench: $(VENV)/bench  ## measured claims, as ratios in one run
	$(BIN)/python benchmarks/bench_start.py
	$(BIN)/python benchmarks/bench_64tib.py
	$(BIN)/python benchmarks/bench_ls.py
	$(BIN)/python benchmarks/bench_host.py
	$(BIN)/python benchmarks/bench_explore.py
	$(BIN)/python benchmarks/bench_sweep.py
	$(BIN)/python benchmarks/bench_lab.py
	$(BIN)/python benchmarks/bench_live.py

man: $(VENV)/dev  ## man pages and completion for bash and zsh, in build/
	@$(BIN)/python docs/man.py build

# make mutants: the lines that differ from main. ALL=1 is every line of the packages that it knows,
# SAMPLE=200 SEED=1 so many of them by chance.
mutants: $(VENV)/mutants  ## alter the code at one place at a time: a fast test must fail
	$(BIN)/python benchmarks/mutants.py $(if $(ALL),--all) \
		$(if $(SAMPLE),--all --sample $(SAMPLE)) --seed $(or $(SEED),1)

coverage: $(VENV)/dev  ## lines and branches that no fast test runs, as pages in build/coverage
	$(BIN)/pytest -m "not lab and not browser" --cov --cov-report=term --cov-report=html

oldest: $(BIN)/python  ## the fast tests with the oldest versions that pyproject.toml allows
	$(BIN)/python benchmarks/oldest.py build/oldest

# A clean environment, so that what the wheel lacks shows; nothing of this folder is imported there.
dist: $(VENV)/dev  ## wheel and sdist in dist/, and a scenario with the wheel alone
	@rm -rf dist build/dist
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build --outdir dist . >/dev/null
	@$(BIN)/python -m venv build/dist >/dev/null 2>&1 || \
		$(BIN)/python -m venv --clear --without-pip build/dist
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(PYTHON) -m pip --python build/dist/bin/python install --quiet \
		--constraint constraints.txt dist/*.whl
	@cd build/dist && env -u PYTHONPATH bin/altmap run $(CURDIR)/scenarios/dimm-1GiB.toml \
		--summary --check
	@ls dist/*

# make fuzz INPUTS=100000 FUZZ_SECONDS=600: of each reader, whichever is reached first.
fuzz: $(VENV)/dev  ## malformed inputs for every reader, and a million messages for the decoder
	$(BIN)/python fuzz/harness.py --inputs $(or $(INPUTS),20000) --seconds $(or $(FUZZ_SECONDS),60)
	$(BIN)/python benchmarks/fuzz_messages.py

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Root on Debian installs QEMU; elsewhere each lab test says what is missing when it is skipped.
lab-tools: $(VENV)/dev
	@.ci/install $(QEMUS)

live-tools: $(VENV)/dev
	@.ci/install $(LIVE_TOOLS)

# The page of a report is tested in Debian's Chromium.
browser-tools: $(VENV)/dev
	@.ci/install chromium:chromium

$(BIN)/python:
	@echo "set-up: pip installs altmap into $(VENV), which takes about a minute"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --without-pip $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --version >/dev/null || { \
		echo "need pip for $(PYTHON) (Debian: apt install python3-venv)" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/run: $(BIN)/python pyproject.toml constraints.txt
	@$(call install,$(RUN_EXTRAS))
	@touch $@

$(VENV)/dev: $(BIN)/python pyproject.toml constraints.txt
	@$(call install,$(DEV_EXTRAS))
	@touch $@ $(VENV)/run

$(VENV)/bench: $(VENV)/dev
	@$(call install,$(BENCH_EXTRAS))
	@touch $@

$(VENV)/mutants: $(VENV)/dev
	@$(call install,$(MUTANTS_EXTRAS))
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
