# Every target works on a fresh machine with Python >= 3.11 and pip; each sets up .venv when needed.
#   make setup   .venv with the kahler-verify command     make docs      the documentation, in site/
#   make demo    train, verify, write demo/*.html         make thorough  the slow test profile
#   make test    every check that CI runs                 make clean     remove what is generated
# Another interpreter: make setup PYTHON=/path/to/python3.12

PYTHON ?=
VENV ?= .venv

bin := $(VENV)/bin
stamp := $(VENV)/.installed
recent_enough := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: setup demo test docs thorough constraints clean
.DELETE_ON_ERROR:

setup: $(stamp)

# The stamp is touched last, so that an interrupted installation is taken up again.
$(stamp): pyproject.toml constraints.txt
	@if ! $(bin)/python -c '$(recent_enough)' 2>/dev/null; then \
		python='$(PYTHON)'; \
		for candidate in python3.11 python3.12 python3.13 python3 python; do \
			[ -n "$$python" ] && break; \
			"$$candidate" -c '$(recent_enough)' 2>/dev/null && python=$$candidate; \
		done; \
		if [ -z "$$python" ] || ! "$$python" -c '$(recent_enough)'; then \
			echo "kahler-verify needs Python 3.11 or newer, but $${python:-every python on PATH} is older or missing." >&2; \
			echo "Install one, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; \
			exit 1; \
		fi; \
		echo "Creating $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV) || { \
			echo "Could not create $(VENV); on Debian and Ubuntu the package python3-venv may be missing." >&2; \
			exit 1; \
		}; \
	fi
	$(bin)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test,docs]'
	@touch $@

demo: setup
	mkdir -p demo
	$(bin)/kahler-verify train --latent real --likelihood bernoulli --latent-dim 2 --epochs 150 --seed 0 \
		--out demo/vae.safetensors
	$(bin)/kahler-verify verify demo/vae.safetensors --no-kernels --json demo/vae.json --html demo/vae.html
	$(bin)/kahler-verify geodesic demo/vae.safetensors '#104' '#157' --plot demo/geodesic.png
	$(bin)/kahler-verify train --data digits --decoder holomorphic --latent-dim 4 --epochs 150 --seed 0 \
		--out demo/digits.safetensors
	$(bin)/kahler-verify verify demo/digits.safetensors --json demo/verify.json --html demo/report.html
	@echo "An ordinary VAE: demo/vae.html and demo/geodesic.png; a complex one, and every kernel: demo/report.html"
	@echo "To look around: $(bin)/kahler-verify explore demo/vae.safetensors"

test: setup
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/kahler-verify generate --check
	$(bin)/pytest

thorough: setup
	KAHLER_PROFILE=thorough $(bin)/pytest

docs: setup
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict

# Rewrites constraints.txt with the newest releases that pyproject.toml admits; torch moves by hand only.
constraints: setup
	$(bin)/python -m venv --clear build/pin
	build/pin/bin/python -m pip install "$$(grep '^torch==' constraints.txt)" '.[test,docs,bench,experiments]'
	{ sed -n '/^#/p' constraints.txt; \
	  build/pin/bin/python -m pip freeze --all --exclude pip --exclude kahler-verify | sed 's/+cpu$$//'; \
	} > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/pin

clean:
	rm -rf demo site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
