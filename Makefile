# make demo   sets everything up and does the main job on the embedded model
# make test   sets everything up and passes the tests (everything that CI runs)
# make check  ruff, mypy, the quick tests
# make bench  the committed tables, measured anew

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= runs/demo
DEMO_OPTIONS ?=

.PHONY: demo test check bench chromium clean

demo: $(VENV)/.ready
	$(BIN)/lorascope demo --out $(OUT) $(DEMO_OPTIONS)

test: $(VENV)/.ready-test chromium
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

check: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile \
	    -m "not slow and not browser and not gpu"

bench: $(VENV)/.ready-test
	$(BIN)/python -m benchmarks.miniature.card
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.swapping
	test -d $(OUT) || $(BIN)/lorascope demo --out $(OUT) --no-open
	$(BIN)/python -m benchmarks.heldout $(OUT)
	$(BIN)/python -m benchmarks.again $(OUT)
	$(BIN)/python -m benchmarks.drawing
	$(BIN)/python -m benchmarks.killing
	$(BIN)/python -m benchmarks.viewer
	$(BIN)/python -m benchmarks.likeness $(OUT) --work runs/likeness
	$(BIN)/python -m benchmarks.adherence $(OUT)
	$(BIN)/python -m benchmarks.copies runs/copies
	$(BIN)/python -m benchmarks.stress --work runs/stress

# The CPU build of torch is enough; where only the CUDA build is on offer, that one is taken.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

# daam pins an old diffusers, so it goes in without its dependencies; tests compare with it.
$(VENV)/.ready-test: $(VENV)/.ready
	$(PIP) --editable ".[test,browser,daam]"
	$(PIP) --no-deps daam==0.2.0
	touch $@

# The browser tests need a Chromium; without one, and without the rights to install it, they skip.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	|| command -v google-chrome >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	|| echo "No Chromium found: the browser tests will skip. Debian: apt-get install chromium"

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
