# make demo: environment, default run, summary, an exported student and what it says of an image.
# make test: environment, style, types, all tests.
# make check: style, types and the quick tests, for every commit; make quick: these tests alone.
# make fuzz: a thousand fresh examples of each property, about a minute; make nightly: the tests that repeat quicker ones with
# more cases; both run every night.
# make live: `make demo`, and the page of that student as static files, which `make docs` adds to the site.
# make docs: the site in site/, strictly; make tutorial: the outputs in docs/tutorial.ipynb anew.
# make archive: tables, records and page of the default run in docs/studies/data, for `cdl trace`; its table in the pages.
# make gpu-proof: what one machine with a GPU can show, see docs/performance.md.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
WORKERS = $$(($(CORES) + 1))  # some tests wait for a cluster

STUDENT := results/default/cifar20/ranpac/student-vit_nano-q-vit_nano/seed0
IMAGE := import io, pandas as p; from PIL import Image; d = p.read_parquet('cdl/assets/cifar20.parquet'); \
	Image.open(io.BytesIO(d[d.split == 'test'].image.iloc[0])).save('results/apple.png')

demo: $(VENV)/ready-export
	$(BIN)/cdl run config/default.yaml --cores $(CORES)
	@$(MAKE) --no-print-directory results/student/manifest.json results/apple.png
	$(BIN)/cdl predict results/student results/apple.png --top 3
	@echo 'Go on: . $(BIN)/activate, then: cdl demo results/student'

# after `cdl run`, which writes the results; an export that is up to date is kept
results/student/manifest.json: $(STUDENT)/results.json $(wildcard cdl/deployment/*.py cdl/device/*.py)
	@rm -rf results/student
	$(BIN)/cdl export $(STUDENT) -o results/student

results/apple.png: cdl/assets/cifar20.parquet
	@$(BIN)/python -c "$(IMAGE)"

test: $(VENV)/ready-test $(VENV)/ready-docs
	$(MAKE) --jobs 2 style docs
	$(BIN)/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder --durations 10

check: $(VENV)/ready-test
	$(MAKE) --jobs 2 style quick

quick: $(VENV)/ready-test
	$(BIN)/pytest -n $(CORES) --dist loadscope --no-loadscope-reorder -m "not slow" --quiet

fuzz: $(VENV)/ready-test
	$(BIN)/pytest -m "hypothesis and not slow" --hypothesis-profile nightly --durations 10

nightly: $(VENV)/ready-test
	$(BIN)/pytest -n $(CORES) --dist loadscope --nightly --durations 10

style: $(VENV)/ready-test
	$(BIN)/ruff check cdl snakemake_logger_plugin_cdl workflow tests benchmarks tools examples docs/*.py
	$(BIN)/ruff format --check cdl snakemake_logger_plugin_cdl workflow tests benchmarks tools examples docs/*.py
	$(BIN)/snakefmt --check Snakefile workflow/Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/mypy

live: demo
	@rm -rf results/live
	$(BIN)/cdl demo results/student --static results/live

docs: $(VENV)/ready-docs
	$(BIN)/python docs/make_site.py

tutorial: $(VENV)/ready-test
	$(BIN)/python docs/tutorial.py

archive: $(VENV)/ready
	$(BIN)/python -m tools.archive default docs/studies/data/default_run.tar.xz
	$(BIN)/python -m tools.default_run
	$(BIN)/python -m tools.pages

gpu-proof: $(VENV)/ready-test
	$(BIN)/python benchmarks/gpu_proof.py

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/ready-export: $(VENV)/ready
	$(BIN)/pip install --quiet --editable '.[export]'
	touch $@

$(VENV)/ready-test: $(VENV)/ready
	$(BIN)/pip install --quiet --editable '.[test,slurm]'
	touch $@

$(VENV)/ready-docs: $(VENV)/ready
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

# writes the schema for editors; run it after a change of config.schema.yaml
schema: $(VENV)/ready
	$(BIN)/python -c "from cdl.study import configuration as c; c.EDITOR_SCHEMA.write_text(c.editor_schema())"

.PHONY: demo live test check quick fuzz nightly style docs tutorial archive gpu-proof schema
