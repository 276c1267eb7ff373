# The commands of the project; CONTRIBUTING.md explains them. Everything lives in .venv.
#
#   make demo                        a real model answers, on NumPy, from nothing but Python
#   make test ARGS="-k scheduler"    pass more arguments to pytest
#   make demo PYTHON=python3.12      choose the interpreter that .venv is made with

PYTHON ?= python3
ARGS ?=
# Processes that share the tests, file by file; auto: one for each core.
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DISTRIBUTIONS := core $(patsubst %/pyproject.toml,%,$(wildcard backends/*/pyproject.toml))
MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
ORACLES := torch transformers accelerate jax gguf sentencepiece $(if $(filter Windows_NT,$(OS)),,mlx)
ORACLES += $(if $(filter Linux,$(shell uname -s 2>/dev/null)),triton)

# What is tested with clients that others wrote: one environment each, below .venv-clients.
CLIENT_VENVS := .venv-clients
LOAD_CLIENTS := guidellm vllm
CLIENTS := $(filter-out $(LOAD_CLIENTS),$(patsubst requirements/clients/%.txt,%,$(wildcard requirements/clients/*.txt)))
CLIENT_STAMPS := $(CLIENTS:%=$(CLIENT_VENVS)/%/made.stamp) $(CLIENT_VENVS)/node/modules.stamp

# Intel's extension for PyTorch wants a torch of its own.
IPEX_VENV := .venv-ipex
# Where Google's compiler for TPUs lives, by itself: it has terms of its own, and nothing depends on it.
TPU_VENV := .venv-tpu

# The CPU kernels: compiled where there is a compiler, and then a failure is an error. CMake and Ninja
# come as wheels where the system has none.
COMPILER := $(shell command -v $${CXX:-c++} g++ clang++ 2>/dev/null)
KERNELS := backends/cpu/CMakeLists.txt $(wildcard backends/cpu/kernels/*.* backends/cpu/kernels/*/*.*)
BUILD_TOOLS := $(if $(COMPILER),$(foreach tool,cmake ninja,$(if $(shell command -v $(tool) 2>/dev/null),,$(tool))))
BUILD_ENV := $(if $(COMPILER),OCTAVO_CPU_REQUIRE_KERNELS=1,OCTAVO_CPU_NO_KERNELS=1)

.PHONY: help demo serve kernels test test-all test-clients test-browser test-cross test-ipex test-tpu-compiler test-spirv browser-deps lint format matrix bench bench-clients clean clean-env

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/cpu.stamp ## Fetch SmolLM2-135M (98 MB) and ask it a question, without torch
	@$(BIN)/python scripts/fetch_model.py
	$(BIN)/octavo chat $(MODEL) --device cpu --temperature 0 \
		--message "What is the capital of France?"

serve: $(VENV)/serve.stamp $(VENV)/cpu.stamp ## Fetch SmolLM2-135M and serve it at http://127.0.0.1:8000
	@$(BIN)/python scripts/fetch_model.py
	$(BIN)/octavo serve $(MODEL) --device cpu $(ARGS)

kernels: $(VENV)/cpu.stamp ## Compile the CPU kernels that have changed, and install them

test: $(VENV)/test.stamp $(VENV)/cpu.stamp ## Run all tests but the slow ones
	OCTAVO_TEST_REQUIRES="$(ORACLES)" $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-all: $(VENV)/test.stamp $(VENV)/cpu.stamp $(CLIENT_STAMPS) browser-deps ## Run all tests, the slow ones and all clients too
	OCTAVO_TEST_REQUIRES="$(ORACLES)" OCTAVO_TEST_CLIENTS="$(CLIENTS)" OCTAVO_TEST_BROWSER=1 \
		$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

test-clients: $(VENV)/test.stamp $(VENV)/cpu.stamp $(CLIENT_STAMPS) ## Call a real server with the clients of others
	@$(BIN)/python scripts/fetch_model.py
	OCTAVO_TEST_REQUIRES="$(ORACLES)" OCTAVO_TEST_CLIENTS="$(CLIENTS)" \
		$(BIN)/python -m pytest tests/clients -m "slow or not slow" $(ARGS)

test-browser: $(VENV)/test.stamp $(VENV)/cpu.stamp browser-deps ## Try the page of a real server in Chromium
	OCTAVO_TEST_BROWSER=1 $(BIN)/python -m pytest tests/browser -m "slow or not slow" $(ARGS)

test-cross: ## Check the CPU kernels for Arm and POWER under an emulator, as far as there is one
	$(PYTHON) scripts/cross_check.py $(ARGS)

test-ipex: $(IPEX_VENV)/made.stamp ## Hold Intel's extension for PyTorch to the conformance suite
	$(IPEX_VENV)/bin/python -W ignore -m octavo conform torch --attention-backend ipex $(ARGS)

test-tpu-compiler: $(TPU_VENV)/made.stamp ## Compile the TPU kernels and a decode step for TPUs that are not here
	PYTHONPATH=backends/tpu/src $(TPU_VENV)/bin/python scripts/tpu_compile.py $(ARGS)

test-spirv: ## Compile the Triton kernels for Intel GPUs, where there is a Triton that can
	$(or $(SPIRV_PYTHON),$(wildcard $(BIN)/python),$(PYTHON)) scripts/spirv_compile.py $(ARGS)

browser-deps: $(VENV)/browser.stamp ## Install what drives Chromium, and look for Chromium itself
	@command -v "$${OCTAVO_CHROMIUM:-chromium}" >/dev/null || { \
		echo "error: there is no Chromium. On Debian: apt-get install chromium;" \
			"elsewhere name one: OCTAVO_CHROMIUM=PATH" >&2; exit 1; }

lint: $(VENV)/lint.stamp ## Check style, formatting, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(addsuffix /src,$(DISTRIBUTIONS))
	$(BIN)/lint-imports

format: $(VENV)/lint.stamp ## Format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

matrix: $(VENV)/cpu.stamp ## Write docs/support-matrix.md from what the conformance suite finds
	$(BIN)/python scripts/support_matrix.py

bench: $(VENV)/test.stamp $(VENV)/cpu.stamp ## Run the quick benchmarks; docs/benchmarks.md has the long ones
	@$(BIN)/python scripts/fetch_model.py
	$(BIN)/python benchmarks/engine_overhead.py --quick
	$(BIN)/python benchmarks/cold_start.py --runs 3
	$(BIN)/python benchmarks/peak_memory.py
	$(BIN)/python benchmarks/offline.py --engine octavo,transformers --backend numpy --rounds 2 --scale 0.125
	$(BIN)/python benchmarks/native.py --part speed --engine octavo,octavo_4bit,transformers \
		--rounds 2 --batch-rounds 1 --scale 0.125

bench-clients: $(VENV)/test.stamp $(VENV)/cpu.stamp $(LOAD_CLIENTS:%=$(CLIENT_VENVS)/%/made.stamp) ## Load a server with vLLM's benchmark and GuideLLM
	@$(BIN)/python scripts/fetch_model.py
	OCTAVO_TEST_CLIENTS="$(LOAD_CLIENTS)" \
		$(BIN)/python -m pytest tests/clients/test_load_clients.py -m "slow or not slow" -s $(ARGS)

clean: ## Remove caches and built files
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build backends/cpu/build
	find core backends examples tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

clean-env: ## Remove .venv and the clients' environments
	rm -rf $(VENV) $(CLIENT_VENVS) $(IPEX_VENV) $(TPU_VENV) tests/clients/node/node_modules

# A stamp is newer than all that decides what its step installs, or the step runs again.

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: Octavo needs Python 3.11 or newer, and '$(PYTHON)' is" \
			"$$($(PYTHON) --version 2>/dev/null || echo not found). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "error: '$(PYTHON) -m venv' failed (on Debian and Ubuntu:" \
			"apt install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/run.stamp: $(VENV)/made.stamp constraints.txt requirements/build.txt \
		$(addsuffix /pyproject.toml,$(DISTRIBUTIONS))
	@echo "Installing Octavo into $(VENV) (no torch) ..."
	@$(PIP_INSTALL) -r requirements/build.txt $(BUILD_TOOLS)
	@$(PIP_INSTALL) --no-build-isolation -e core
	@touch $@

$(VENV)/cpu.stamp: $(VENV)/run.stamp $(KERNELS)
	@echo "$(if $(COMPILER),Compiling the CPU kernels,There is no C++ compiler here: installing the CPU \
		backends without kernels. NumPy will serve) ..."
	@$(BUILD_ENV) $(PIP_INSTALL) --no-build-isolation -e backends/cpu
	@touch $@

$(VENV)/serve.stamp: $(VENV)/run.stamp
	@echo "Installing what the server needs into $(VENV) ..."
	@$(PIP_INSTALL) --no-build-isolation -e "core[serve]"
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp requirements/test.txt requirements/oracles.txt | $(VENV)/cpu.stamp
	@echo "Installing what the tests need into $(VENV), torch, jax, mlx and transformers among it ..."
	@$(PIP_INSTALL) --no-build-isolation $(addprefix -e ,$(filter-out backends/cpu,$(DISTRIBUTIONS))) \
		-r requirements/test.txt -r requirements/oracles.txt
	@touch $@

$(VENV)/browser.stamp: $(VENV)/run.stamp requirements/browser.txt
	@$(PIP_INSTALL) -r requirements/browser.txt
	@touch $@

$(VENV)/lint.stamp: $(VENV)/run.stamp requirements/lint.txt | $(VENV)/cpu.stamp
	@echo "Installing the linters into $(VENV) ..."
	@$(PIP_INSTALL) --no-build-isolation $(addprefix -e ,$(filter-out backends/cpu,$(DISTRIBUTIONS))) -r requirements/lint.txt
	@touch $@

# A client is installed from its own list alone, pip's ordinary way: what it wants is what it gets.
$(CLIENT_VENVS)/%/made.stamp: requirements/clients/%.txt
	@echo "Installing the client '$*' into $(CLIENT_VENVS)/$* ..."
	@rm -rf $(CLIENT_VENVS)/$* && $(PYTHON) -m venv $(CLIENT_VENVS)/$*
	@$(CLIENT_VENVS)/$*/bin/python -m pip install --quiet --disable-pip-version-check \
		$(PIP_FLAGS_$*) -r $<
	@touch $@

# vLLM's load client needs a part of what its wheel names: requirements/clients/vllm.txt has it all.
PIP_FLAGS_vllm := --no-deps

$(CLIENT_VENVS)/node/modules.stamp: $(CLIENT_VENVS)/node/made.stamp tests/clients/node/package-lock.json
	@echo "Installing the clients in tests/clients/node ..."
	@cd tests/clients/node && PATH="$(CURDIR)/$(CLIENT_VENVS)/node/bin:$$PATH" \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(TPU_VENV)/made.stamp: requirements/tpu-compiler.txt constraints.txt core/pyproject.toml
	@echo "Installing JAX and libtpu, which is under Google's terms, into $(TPU_VENV) ..."
	@rm -rf $(TPU_VENV) && $(PYTHON) -m venv $(TPU_VENV)
	@$(TPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e core -r requirements/tpu-compiler.txt
	@touch $@

$(IPEX_VENV)/made.stamp: requirements/ipex.txt constraints.txt scripts/stand_in_cuda.py \
		core/pyproject.toml backends/torch/pyproject.toml
	@echo "Installing torch 2.8 and Intel's extension into $(IPEX_VENV) (1 GB to download) ..."
	@rm -rf $(IPEX_VENV) && $(PYTHON) -m venv $(IPEX_VENV)
	@$(IPEX_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/ipex.txt
	@$(IPEX_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e core \
		filelock fsspec networkx packaging psutil setuptools sympy typing_extensions
	@$(IPEX_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps -e backends/torch
	@$(PYTHON) scripts/stand_in_cuda.py "$$($(IPEX_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	@touch $@
