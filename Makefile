# Cistern. `make run` starts the box, `make test` is what CI runs; `make help` lists the rest.

BIN   := bin
DATA  ?= var
GO    ?= go
TOOL  := $(GO) tool
UNITS  = $(shell $(GO) list ./... | grep -v /hwtest)
ONLY  ?=
SIZE  ?= 200MB
SUITE ?=

.DEFAULT_GOAL := help
.PHONY: help build run test unit stories lint golangci vuln fuzz demo bench soak conformance clean

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

build: ## bin/cisternd, bin/cistern, bin/cistern-agent, static
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/...

run: build ## the box on loopback, data in ./var (DEMO=1: with an origin of its own)
ifeq ($(DEMO),1)
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./hwtest/demo
	@$(BIN)/demo run --data $(DATA) --bin $(BIN)
else
	@$(BIN)/cisternd --data $(DATA)
endif

test: ## everything at reduced size: what CI runs
	@hwtest/setup.sh
	@$(MAKE) --no-print-directory lint unit stories
	@hwtest/fuzz.sh multicast/norm

lint: ## formatting, vet, staticcheck, code that nothing reaches
	@hwtest/lint.sh

unit: ## unit tests of every package, with the race detector
	CGO_ENABLED=1 $(GO) test -vet=off -race -timeout 10m $(UNITS)

stories: build ## real kernels, foreign clients and servers, at reduced size
	CGO_ENABLED=0 $(GO) test -vet=off -timeout 15m ./hwtest/...

demo: build ## release day on one machine, with and without the box (SIZE=200MB)
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./hwtest/demo
	@$(BIN)/demo lan --size $(SIZE) --bin $(BIN)

bench: build ## side by side with peers, ratios; bin/bench.json beside the table (ONLY=http.small)
	@hwtest/setup.sh bench
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./hwtest/bench
	@$(BIN)/bench -bin $(BIN) -json $(BIN)/bench.json -only "$(ONLY)"

soak: build ## every figure of the issues at full size (ONLY=demo)
	@hwtest/soak.sh $(ONLY)

conformance: build ## http-tests/cache-tests through the box (SUITE=checkout with npm install done; else its npm package)
	CGO_ENABLED=0 CISTERN_CACHE_TESTS=$(abspath $(SUITE)) $(GO) test -vet=off -count=1 -timeout 9m -v -run TestConformance ./hwtest

fuzz: ## every fuzz target for a while (FUZZTIME=60s)
	@hwtest/fuzz.sh

golangci: ## more linters (.golangci.yml); builds golangci-lint first, some minutes
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...

vuln: ## known vulnerabilities in what is called (needs the vulnerability database)
	$(TOOL) govulncheck ./...

clean: ## remove what was built; the data in ./var stays
	rm -rf $(BIN) dist
