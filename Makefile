# make help lists everything. Overridable: PROFILE=quick|short|paper  SEEDS=n  TRAIN=0  ARGS='recipe.lr=0.05'
PYTHON ?= python3
VENV ?= .venv
# VENV= (empty): the Python on PATH, into which everything is installed already (conda, Docker)
PY := $(if $(VENV),$(VENV)/bin/python,$(PYTHON))
STAMP := $(if $(VENV),$(VENV)/.installed)
DRAW = $(PY) experiments/$@.py $(if $(PROFILE),--profile $(PROFILE)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(filter 0,$(TRAIN)),--no-train) $(ARGS)

.DEFAULT_GOAL := help
ITEMS := fig1 fig4 fig6 fig7 gradients table2 table3 table4 table5 table6 claims highway blocks deviations
DRAWINGS := fig2 fig3 fig5 table1
.PHONY: help setup data quickstart test lint types unit clean bench cost notebooks reliability report compare results study study-list $(ITEMS) $(DRAWINGS)

help: ## list what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  choose with PROFILE=quick|short|paper  SEEDS=n  TRAIN=0 (only draw)  ARGS='recipe.lr=0.05 ...'"

setup: $(STAMP) ## make .venv with the tested versions and the project in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

data: $(STAMP) ## get CIFAR-10 and verify it
	@$(PY) -m resnet_repro.data $(ARGS)

quickstart: $(STAMP) ## everything, thin: train plain-20 and plain-56 for one epoch, draw Figure 1
	@$(PY) experiments/fig1.py --profile quick --seeds 1

fig1: ## Fig. 1: plain-20 and plain-56, training and test error
fig2: ## Fig. 2: a residual block
fig3: ## Fig. 3: VGG-19, plain-34 and ResNet-34, drawn from their counted layers
fig4: ## Fig. 4: 18 and 34 layers, plain and residual, on Tiny ImageNet
fig5: ## Fig. 5: basic block and bottleneck
fig6: ## Fig. 6: plain nets, residual nets, 110 against 1202 layers
fig7: ## Fig. 7: layer responses
gradients: ## gradient norms and forward signal, plain against residual
table1: ## Table 1: the ImageNet architectures, counted
table2: ## Table 2: 18 and 34 layers, 10-crop
table3: ## Table 3: shortcut options and depth, 10-crop
table4: ## Table 4: single nets, several scales
table5: ## Table 5: ensembles
table6: ## Table 6: CIFAR-10 test error beside the paper's and public runs
claims: ## every claim of Sec. 4.2 with its verdict
highway: ## identity against gated shortcuts
blocks: ## blocks of one, two and three layers
deviations: ## what each choice the paper leaves open is worth

$(ITEMS): $(STAMP)
	@$(DRAW)

$(DRAWINGS): $(STAMP)
	@$(PY) experiments/$@.py $(ARGS)

notebooks: $(STAMP) ## run the notebooks again and keep what they show
	@rm -rf results/runs/smoke/notebook_*
	@$(PY) notebooks/run.py $(ARGS)

bench: $(STAMP) ## measure speed on this device: ARGS='training limit' for parts; writes docs/SPEED.md
	@$(PY) -m benchmarks $(ARGS)

cost: $(STAMP) ## how long every training of the paper takes on this device; into docs/SPEED.md
	@$(PY) -m benchmarks cost $(ARGS)

report: $(STAMP) ## one page: figures, tables, claims, runs
	@$(PY) -m resnet_repro.analysis.report $(ARGS)

compare: $(STAMP) ## errors against a swept key: ARGS='recipe.lr' or ARGS='results/runs/quick/cifar10_resnet20*'
	@$(PY) -m resnet_repro.compare $(ARGS)

results: $(STAMP) ## README, docs/RESULTS.md and its figures and tables from the logged runs
	@$(PY) -m pages.write

# Without $(STAMP): a host with torch may have no network to set up an environment.
.PHONY: gpu-check
gpu-check: ## what works on this GPU, in four minutes; needs Python, torch and numpy alone
	@PYTHONPATH=src$(PYTHONPATH:%=:%) $(if $(wildcard $(STAMP)),$(PY),$(PYTHON)) -m benchmarks.gpu_check $(ARGS)

study: $(STAMP) ## the study in its order: what is missing; BUDGET=25m ITEM=fig6; make study-list tells
	@$(PY) -m resnet_repro.study run $(if $(BUDGET),--budget $(BUDGET)) $(if $(ITEM),--item $(ITEM)) $(ARGS)

study-list: $(STAMP) ## the runs of the study: done, begun, missing
	@$(PY) -m resnet_repro.study list $(if $(ITEM),--item $(ITEM)) $(ARGS)

test: lint ## lint, types, unit and end-to-end tests
	@$(MAKE) --no-print-directory -j2 types unit

lint: $(STAMP)
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

types: $(STAMP)
	@$(PY) -m mypy

unit: $(STAMP)
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto --dist loadfile

reliability: $(STAMP) ## kill, starve and mislead real runs and count what survives: hours; PART=kills
	@PYTHONPATH=tests $(PY) -m reliability $(if $(PART),--part $(PART)) $(ARGS)
	@PYTHONPATH=tests $(PY) -m reliability.page

clean: ## remove .venv and caches; results stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
