# make demo    evaluate three families of small models, predict the largest, compare; about two minutes (results/demo/report.html has figures)
# make test    lint, types, docs, tests; about three minutes
# make analyses  the tables of results/analyses and the figure of README.md, from the store that make demo leaves; under a minute
# make sampling  sums that models write until five are right, and the largest model predicted; about four minutes
# make check   the same in an environment that is there already
# Both make .venv and install what they need (PyTorch for the CPU; see .ci/constraints.txt).

PYTHON ?= python3
BIN = .venv/bin
STORE = results/demo/store
TASKS = nano_addition,nano_agreement,nano_birthplace,nano_flag,nano_job,nano_ordering,nano_saying,nano_text

.PHONY: demo analyses sampling test check docs clean

demo: .venv/demo
	$(BIN)/harness eval aster birch cedar --tasks $(TASKS) --limit 400 -o $(STORE)
	$(BIN)/harness fit $(STORE) --law two_step --task nano_addition --metric acc --hold-out largest
	$(BIN)/harness compare $(STORE) --expect results/demo
	$(BIN)/harness compare $(STORE) --law two_step --law sigmoid --expect results/demo/laws
	$(BIN)/harness report $(STORE) -o results/demo/report.html

analyses: $(STORE)
	$(BIN)/harness decompose $(STORE) -o results/analyses
	$(BIN)/harness trends $(STORE) -o results/analyses
	$(BIN)/harness decide $(STORE) -o results/analyses
	$(BIN)/harness subsets $(STORE) -o results/analyses
	$(BIN)/harness plot $(STORE) --task nano_ordering -o results/demo/ordering.svg

sampling: .venv/demo
	$(BIN)/harness eval aster@1600 --tasks nano_addition_gen --limit 100 --sampler pass_until --successes 5 \
		--max-samples 200 --temperature 1 -o results/sampling/store
	$(BIN)/harness compare results/sampling/store --law pass_until --law sigmoid --expect results/sampling

test: .venv/test check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cog --check --diff README.md harness/README.md harness/docs/laws.md plugins/README.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

docs:
	$(BIN)/cog -r README.md harness/README.md harness/docs/laws.md plugins/README.md

.venv/demo: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip uninstall --quiet --yes harness  # the name of the distribution in 0.1
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --editable '.[report,transformers]'
	touch $@

.venv/test: pyproject.toml .ci/constraints.txt .ci/test-versions.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip uninstall --quiet --yes harness
	$(BIN)/pip install --quiet --constraint .ci/constraints.txt --constraint .ci/test-versions.txt --editable '.[test]'
	touch $@ .venv/demo

clean:
	rm -rf .venv .venv-vllm build results/demo/store results/demo/report.html
