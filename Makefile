# `make` lists what there is to do. The work is in deploy/scripts/, one file a target.
.DEFAULT_GOAL := help
SCRIPTS := deploy/scripts

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: ## Build and run everything in one process, with its own PostgreSQL; Ctrl-C stops it
	@$(SCRIPTS)/up.sh

.PHONY: demo
demo: ## Run the fleet and an application whose routes it protects, and print what to try
	@$(SCRIPTS)/demo.sh

.PHONY: test
test: ## Run the tests; servers that they need are installed where the system allows it
	@$(SCRIPTS)/test.sh

.PHONY: test-long
test-long: ## Run the tests that take minutes as well
	@$(SCRIPTS)/test.sh --long

.PHONY: chaos
chaos: chaos-quota chaos-usage ## Everything that breaks things

.PHONY: chaos-quota
chaos-quota: ## Break things under load and check that no limit is passed and nothing is lost (SEEDS=10 for more)
	@$(SCRIPTS)/chaos.sh quota

.PHONY: chaos-usage
chaos-usage: ## Break things while events are recorded and check that each acknowledged one is there once (SEEDS=10 for more)
	@$(SCRIPTS)/chaos.sh usage

.PHONY: bench-quota
bench-quota: ## Measure what decisions cost, beside a server that decides nothing
	@$(SCRIPTS)/bench.sh quota

.PHONY: bench-quota-cache
bench-quota-cache: ## Measure what copies in Redis save, beside PostgreSQL alone
	@$(SCRIPTS)/bench.sh quota cache

.PHONY: bench-usage
bench-usage: ## Measure what recording and summing usage cost, beside a plain table
	@$(SCRIPTS)/bench.sh usage

.PHONY: lint
lint: ## Check format, lints, documentation, dependencies, contracts, scripts and manifests
	@$(SCRIPTS)/lint.sh

.PHONY: fmt
fmt: ## Format the code and the contracts
	@$(SCRIPTS)/fmt.sh

.PHONY: proto-check
proto-check: ## Check the contracts: style, format, and that none breaks the baseline
	@$(SCRIPTS)/proto-check.sh
