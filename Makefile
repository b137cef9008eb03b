# The verbs of this repository; `make` lists them. CI runs `make check` and `make test` (.ci/run).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

STORE ?= file
FAMILY ?=
PEER ?=
BEFORE ?=
PARTS ?=
TESTS ?=
SEED ?=
LIST ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One OpenMP thread each: with as many as there are cores they mostly spin, waiting for threads that have no core. A worker keeps
# to a stretch of the tests, so that a module's servers start once, and takes over a part of the other's when it is done.
TWO_AT_A_TIME := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal
FUZZED := tests/service/security/test_fuzz.py tests/service/untrusted/test_parsing.py tests/trainer/test_fuzz.py
RANDOM_INPUT := $(FUZZED) tests/service/test_state_machine.py
MUCH_RANDOM_INPUT := LORAFLEET_FUZZ_EXAMPLES=60 LORAFLEET_STATE_MACHINE_EXAMPLES=20

.PHONY: help
help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(READY) ## Make .venv with everything pinned by constraints.txt

$(READY): pyproject.toml constraints.txt scripts/setup-venv.sh
	scripts/setup-venv.sh $(VENV)
	@touch $@

.PHONY: demo
demo: $(READY) $(if $(filter minio,$(STORE)),minio) ## Train a style and draw before-after.png (STORE=file or minio, FAMILY=sdxl or flow)
	$(BIN)/python -m examples.demo --store $(STORE) $(if $(FAMILY),--family $(FAMILY))

.PHONY: demo-batch
demo-batch: $(READY) $(if $(filter minio,$(STORE)),minio) ## Train 16 styles as packs and draw sheet.png (STORE=file or minio)
	$(BIN)/python -m examples.demo_batch --store $(STORE)

.PHONY: test
test: $(READY) minio postgres ## Run the tests but the slow proofs, those without servers of ours two at a time (TESTS=path for some)
ifeq ($(TESTS),)
	status=0; $(TWO_AT_A_TIME) -m 'not integration and not proof and not k8s' || status=1; \
	$(BIN)/pytest -m 'integration and not proof and not k8s' || status=1; exit $$status
else
	$(BIN)/pytest $(TESTS)
endif

.PHONY: proofs
proofs: $(READY) minio postgres ## Run the slow proofs: equal bits, calamities, kills, every ZeRO stage, much random input (TESTS=path for some)
ifeq ($(TESTS),)
	status=0; $(TWO_AT_A_TIME) -m 'proof and not integration and not k8s' || status=1; \
	$(MUCH_RANDOM_INPUT) $(TWO_AT_A_TIME) $(RANDOM_INPUT) || status=1; \
	$(BIN)/pytest -m 'proof and integration and not k8s' || status=1; exit $$status
else
	$(BIN)/pytest $(TESTS)
endif

.PHONY: test-k8s
test-k8s: $(READY) ## Run the tests on a real cluster: KUBECONFIG's, else one that onenode starts (TESTS=path for some of them)
	scripts/test-k8s.sh $(TESTS)

.PHONY: test-k8s-smoke
test-k8s-smoke: $(READY) ## The same, only the quick ones: install, a job, a lost worker, a cancel
	scripts/test-k8s.sh tests/k8s -m smoke

.PHONY: fuzz
fuzz: $(READY) ## Damaged messages, bases, metadata and pictures, 50 times as many as in `make test` (some minutes)
	LORAFLEET_FUZZ_EXAMPLES=600 $(BIN)/pytest $(FUZZED)

.PHONY: check
check: $(READY) ## Format, lint, types, import rules, protos, schema, chart, shell scripts
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check.sh

.PHONY: format
format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: protos
protos: $(READY) ## Generate lorafleet/v1 from protos/
	$(BIN)/buf lint
	scripts/generate-protos.sh $(BIN)/python .

.PHONY: schema
schema: $(READY) ## Write docs/spec.schema.json and docs/spec.md from lorafleet/spec.py and its sections
	$(BIN)/lorafleet schema > docs/spec.schema.json
	$(BIN)/python -m tests.lorafleet.test_spec_document

.PHONY: golden
golden: ## Write tests/helm/golden: what the chart renders for each value set
	rm -rf tests/helm/golden
	scripts/render-chart.sh tests/helm/golden

.PHONY: kube-schemas
kube-schemas: $(READY) ## Write tests/helm/schemas from what Kubernetes and others publish (Go is needed)
	rm -rf tests/helm/schemas
	$(BIN)/python scripts/make_kube_schemas.py tests/helm/schemas

.PHONY: sync-client
sync-client: $(READY) ## Make lorafleet/sync, the blocking client, from lorafleet/aio
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/make_sync_client.py

.PHONY: settings
settings: $(READY) ## Write the table of settings of docs/operations.md
	$(BIN)/python -m tests.service.test_operations_document

.PHONY: constraints
constraints: $(READY) ## Pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile -q --upgrade --all-extras --python-version 3.11 --no-annotate --no-header \
	    --no-emit-index-url pyproject.toml --output-file constraints.txt

.PHONY: bench-single
bench-single: $(READY) ## Measure against diffusers' script (PEER=path/to/train_text_to_image_lora.py, PARTS=cold,batch1,sdxl,standby,bare)
	@test -f "$(PEER)" || { echo 'PEER=path/to/train_text_to_image_lora.py is needed: the example script of diffusers'; exit 2; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[service,trainer,bench]'
	$(BIN)/python -m bench.single "$(PEER)" $(if $(PARTS),--parts $(PARTS))

.PHONY: bench-pack
bench-pack: $(READY) ## Measure packs against diffusers' script and lone jobs (PEER=path, PARTS=speed,lone,memory,curve,equal,standby,warm)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[service,trainer,bench]'
	$(BIN)/python -m bench.pack $(if $(PEER),"$(PEER)") $(if $(PARTS),--parts $(PARTS))

.PHONY: bench-before
bench-before: $(READY) ## Measure a step in the loop against a commit before (BEFORE=commit)
	$(BIN)/python -m bench.before "$(BEFORE)"

.PHONY: bench-invariance
bench-invariance: $(READY) ## Measure in which batches a row's bits do not depend on its neighbours (PARTS=rows,products,families)
	$(BIN)/python -m bench.invariance $(if $(PARTS),--parts $(PARTS))

.PHONY: bench-generate
bench-generate: $(READY) ## Draw a grid of 16 adapters in few passes, one by one, and with diffusers' load_lora_weights for each
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.generate

.PHONY: bench-formats
bench-formats: $(READY) ## Load each family's, method's and format's file with diffusers and PEFT, and make docs/formats.md (FAMILIES=sd1,flux)
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.formats $(if $(FAMILIES),--families $(FAMILIES))

.PHONY: bench-families
bench-families: $(READY) ## Compare each family's losses with those of diffusers' example scripts (PEER=checkout of diffusers, PARTS=sd1,flux)
	@test -d "$(PEER)" || { echo 'PEER=folder is needed: a checkout of diffusers, or its folder examples'; exit 2; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[service,trainer,bench]'
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.families "$(PEER)" $(if $(PARTS),--parts $(PARTS))

.PHONY: bench-launches
bench-launches: $(READY) ## Count operations, host reads and copies of a training step beside a PEFT loop (PARTS=sd15,sdxl,flux)
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.launches $(if $(PARTS),--shapes $(PARTS))

.PHONY: bench-loading
bench-loading: $(READY) minio ## Measure the memory that a base of 3 B parameters takes while it is loaded, at each precision
	$(BIN)/python -m bench.loading

.PHONY: bench-planning
bench-planning: $(READY) ## Measure the packing planner with 1,000 to 10,000 jobs
	$(BIN)/python -m bench.planning

.PHONY: bench-admission
bench-admission: $(READY) ## Simulate 100,000 jobs through admission and through plain first come, first served
	$(BIN)/python -m bench.admission

.PHONY: bench-batches
bench-batches: $(READY) ## Measure how long batches of 100 to 10,000 items take to be accepted
	$(BIN)/python -m bench.batches

.PHONY: bench-service
bench-service: $(READY) ## Measure the control plane over its database: creates, reads, watchers, pages, ticks, takeover
	$(BIN)/python -m bench.service

.PHONY: bench-registry
bench-registry: $(READY) ## Measure pages and filters of 10,000 adapters over those of 100, and moves of aliases
	$(BIN)/python -m bench.registry

.PHONY: chaos
chaos: $(READY) toxiproxy ## Kill, pause, cut and delay 3 replicas for some minutes, then check every promise (SEED=5)
	$(BIN)/python -m bench.chaos $(if $(SEED),--seed $(SEED))

.PHONY: mutants
mutants: $(READY) ## Take each guard away and name the test that notices (LIST=1 only lists them)
	$(BIN)/python -m tests.mutants $(if $(LIST),--list)

.PHONY: kind-up
kind-up: $(READY) ## Make a kind cluster with lorafleet in it
	deploy/kind/up.sh

.PHONY: kind-demo
kind-demo: $(READY) ## Train the demo's style in that cluster, and draw build/kubernetes/demo/before-after.png
	$(BIN)/python -m deploy.demo

.PHONY: kind-down
kind-down: ## Delete the kind cluster
	deploy/kind/down.sh

.PHONY: minikube-up
minikube-up: $(READY) ## Make a minikube cluster with lorafleet in it
	deploy/minikube/up.sh

.PHONY: minikube-demo
minikube-demo: kind-demo ## Train the demo's style in that cluster

.PHONY: minikube-down
minikube-down: ## Delete the minikube cluster
	deploy/minikube/down.sh

.PHONY: toxiproxy
toxiproxy: ## Find toxiproxy, or build it into .tools/bin (seconds, once)
	@scripts/get-toxiproxy.sh

.PHONY: minio
minio: ## Find MinIO, or build it into .tools/bin (some minutes, once)
	@scripts/get-minio.sh

.PHONY: postgres
postgres: ## Find PostgreSQL's programs, or install its package when that may be done
	@scripts/get-postgres.sh

.PHONY: clean
clean: ## Remove what was built; .venv and .tools stay
	rm -rf build .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
