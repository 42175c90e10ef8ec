# The two commands a newcomer needs, and the daily ones of a developer (CONTRIBUTING.md).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# CUDA kernels take minutes to compile: not where no GPU could run them. What the environment says goes before.
GPU := $(wildcard /dev/nvidiactl /dev/dxg)
export SKBUILD_CMAKE_DEFINE ?= NSRT_PYTHON=ON;NSRT_CUDA=$(if $(GPU),AUTO,OFF)
# The stamp changes when what is installed must change.
SOURCES := $(shell find csrc nextstep_rt bench -type f -not -path "bench/results/*" -not -name '*.pyc' -not -name '*.so') CMakeLists.txt pyproject.toml constraints.txt

.PHONY: demo test check format clean

demo: $(VENV)/.installed
	$(BIN)/nextstep-rt generate "a red circle above a blue square" --seed 0 -o demo.png

test: $(VENV)/.tested
	$(BIN)/pytest

# Everything CI checks besides the tests.
check: $(VENV)/.developed
	.ci/check $(BIN)

format: $(VENV)/.developed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

clean:
	rm -rf build dist demo.png $(VENV)

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/pip $(SOURCES)
	$(BIN)/pip install --quiet -c constraints.txt .
	touch $@

# Each installs the package itself too, so that no command builds it twice.
$(VENV)/.tested: $(VENV)/bin/pip $(SOURCES)
	$(BIN)/pip install --quiet -c constraints.txt .[test]
	touch $(VENV)/.installed $@

$(VENV)/.developed: $(VENV)/bin/pip $(SOURCES)
	$(BIN)/pip install --quiet -c constraints.txt .[dev]
	touch $(VENV)/.installed $(VENV)/.tested $@
