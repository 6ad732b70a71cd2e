# `make help` lists what there is. DEMO_DIR, FUZZTIME, SOAK_MINUTES, RUNS and GO can be set on the command line.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The official installer puts Go where few shells look.
export GO    ?= $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),go)
DEMO_DIR     ?= demo
FUZZTIME     ?= 20s
SOAK_MINUTES ?= 30
RUNS         ?= 2000
# Of one package, not of all of them: two slow cores under the race detector need more than the default 10 minutes.
TEST_TIMEOUT ?= 15m

# A C compiler, since SQLite and PKCS#11 are used through cgo.
BUILD_PACKAGES := softhsm2 gcc libc6-dev
TEST_PACKAGES := $(BUILD_PACKAGES) opensc p11-kit p11-kit-modules swtpm libtpm2-pkcs11-1 libtss2-tcti-swtpm0 openssl postgresql
# The browser tests take any Chromium, and axe-core by npm; Debian's where there is none.
TEST_PACKAGES += $(if $(or $(shell command -v chromium),$(shell command -v google-chrome)),,chromium) $(if $(shell command -v npm),,npm)

# Go stamps the commit into a binary, and fails where git refuses to answer (a checkout that another user owns, say).
VCS   := $(shell git rev-parse --quiet --verify HEAD >/dev/null 2>&1 && echo auto || echo false)
BUILD := $(GO) build -trimpath -buildvcs=$(VCS)

GOLANGCI_VERSION := v2.15.0
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kernelgate

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: demo run
demo: build ## play upgrades on software tokens and check the outcome (DEMO_DIR=demo)
	@$(BUILD) -o bin/demo ./test/demo
	@bin/demo -dir $(DEMO_DIR) -bin bin

run: build ## the same, then keep serving until Ctrl-C, with what to try next
	@$(BUILD) -o bin/demo ./test/demo
	@bin/demo -dir $(DEMO_DIR) -bin bin -keep

.PHONY: build
build: build-deps ## build the commands into bin/
	$(BUILD) -o bin/ ./cmd/...
	CGO_ENABLED=0 $(BUILD) -o bin/ ./cmd/kgverify

.PHONY: test chaos bench fuzz soak
test: deps ## run every test, with the race detector
	$(GO) test -race -timeout $(TEST_TIMEOUT) ./...

chaos: build-deps ## play upgrades under losses, restarts and clock steps against a model, RUNS times (2000)
	@KERNELGATE_SOAK=$(RUNS) $(GO) test -count=1 -run '^TestChaos$$' -timeout 60m -v ./workflow | grep -v '^ *=== '

# One package at a time, so that none measures another. KERNELGATE_BENCH_EVENTS, _APPROVALS, _UPGRADES and _LISTED set the big sizes.
bench: deps ## run the benchmarks; ratios are measured within one run
	$(GO) test -p 1 -run '^$$' -bench . -timeout $(TEST_TIMEOUT) $$(grep -rlE '^func Benchmark[A-Z]' --include='*_test.go' . | xargs -n 1 dirname | sort -u)

fuzz: deps ## run each fuzz target for FUZZTIME (20s)
	@grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | sort | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$$file"); do \
			echo "$$target in $$(dirname "$$file")"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
		done; \
	done

soak: deps ## repeat the tests in random order for SOAK_MINUTES (30), to meet what fails rarely
	@end=$$((SECONDS + 60 * $(SOAK_MINUTES))); round=0; \
	while ((SECONDS < end)); do \
		round=$$((round + 1)); echo "round $$round"; \
		KERNELGATE_SOAK=2m $(GO) test -race -count=1 -shuffle=on -timeout $(TEST_TIMEOUT) ./...; \
	done

.PHONY: generate
generate: ## write the generated code anew
	$(GO) generate ./...

.PHONY: lint lint-format lint-vet lint-golangci lint-tidy lint-generated lint-dependencies
lint: lint-format lint-vet lint-golangci lint-tidy lint-generated lint-dependencies ## check format, vet, golangci-lint, go.mod, generated code, docs/dependencies.md

lint-format:
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .); \
	if [[ -n $$unformatted ]]; then echo "not in gofmt's form (gofmt -w FILE):"; echo "$$unformatted"; exit 1; fi

lint-vet: build-deps
	$(GO) vet ./...

# The linter must be built by a Go at least as new as the code that it reads, hence the key and GOTOOLCHAIN.
lint-golangci: build-deps
	@version=$$($(GO) env GOVERSION); \
	dir="$(CACHE)/golangci-lint-$(GOLANGCI_VERSION)-$$version"; \
	if [[ ! -x $$dir/golangci-lint ]]; then \
		echo "building golangci-lint $(GOLANGCI_VERSION) once into $$dir (some minutes)"; \
		GOBIN="$$dir" GOTOOLCHAIN="$$version" $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION); \
	fi; \
	PATH="$$($(GO) env GOROOT)/bin:$$PATH" "$$dir/golangci-lint" run ./...

lint-tidy:
	$(GO) mod tidy -diff

# Compares before and after, not with git's index, so that it says the same in the middle of a change.
lint-generated: build-deps
	@sums() { find . -name '*.gen.go' -exec sha256sum {} + | sort -k 2; }; \
	before=$$(sums); $(GO) generate ./...; after=$$(sums); \
	if [[ $$before != "$$after" ]]; then \
		echo "generated code was stale and is written anew; commit it:"; \
		diff <(echo "$$before") <(echo "$$after") || exit 1; \
	fi

# Direct dependencies and tools: every one has its sentence, and no sentence is about one that is gone.
lint-dependencies:
	@diff \
		<({ $(GO) mod edit -print | sed -nE '/\/\/ indirect/!s/^\t([a-z0-9.-]+\.[a-z]+(\/[^ ]+)?) v.*/\1/p'; \
			$(GO) list -f '{{.Module.Path}}' tool 2>/dev/null; } | LC_ALL=C sort -u) \
		<(sed -nE 's/^- `([^`]+)`.*/\1/p' docs/dependencies.md | LC_ALL=C sort -u) \
		|| { echo "go.mod (<) and docs/dependencies.md (>) name different dependencies"; exit 1; }

.PHONY: deps build-deps
deps: ## install what the tests need (apt-get; elsewhere it says what is missing)
	@.ci/deps $(TEST_PACKAGES)
	@cd test/browser && npm ci --silent --ignore-scripts --no-audit --no-fund

build-deps:
	@.ci/deps $(BUILD_PACKAGES)

.PHONY: clean
clean: ## remove bin/ and demo/
	rm -rf bin demo
