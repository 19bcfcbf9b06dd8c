# `make` lists what there is to do. The work is in deploy/scripts/, one file a target.
.DEFAULT_GOAL := help
SCRIPTS := deploy/scripts

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: ## Build and run everything in one process, with its own PostgreSQL; Ctrl-C stops it
	@$(SCRIPTS)/up.sh

.PHONY: test
test: ## Run the tests; servers that they need are installed where the system allows it
	@$(SCRIPTS)/test.sh

.PHONY: test-long
test-long: ## Run the tests that take minutes as well
	@$(SCRIPTS)/test.sh --long

.PHONY: lint
lint: ## Check format, lints, documentation, dependencies, contracts, scripts and manifests
	@$(SCRIPTS)/lint.sh

.PHONY: fmt
fmt: ## Format the code and the contracts
	@$(SCRIPTS)/fmt.sh

.PHONY: proto-check
proto-check: ## Check the contracts: style, format, and that none breaks the baseline
	@$(SCRIPTS)/proto-check.sh
