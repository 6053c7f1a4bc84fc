# One word for each thing that is done often; every target can be run again.
.PHONY: setup check test bench docs try clean

setup:          ## Debian packages, virtual environment, package with its tools
	@python3 scripts/setup

check: setup    ## what takes seconds: style, types, house rules
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/python -m pytest -q tests/unit/test_imports.py tests/unit/test_house.py

test:           ## everything, as CI does it
	@scripts/test

bench: setup    ## measurements; see benchmarks/
	@.venv/bin/python -m benchmarks

docs: setup     ## manual page, completion, docs/options.md: made from the options
	@.venv/bin/python scripts/documents.py

try:            ## an Arvados on this machine, with files, mounted at ./arvados
	@scripts/try

clean:          ## what can be made again (the data of `make try` stays in .demo)
	rm -rf .venv .setup.log .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
