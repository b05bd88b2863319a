# Cistern. `make run` starts the box, `make test` is what CI runs; `make help` lists the rest.

BIN   := bin
DATA  ?= var
GO    ?= go
TOOL  := $(GO) tool
UNITS  = $(shell $(GO) list ./... | grep -v /hwtest)
ONLY  ?=
SIZE  ?= 200MB
SUITE ?=
ARCH  ?= amd64
DIST  ?= dist
VERSION ?= $(shell git describe --tags --always 2>/dev/null || echo dev)
KEY   ?= $(DIST)/update.key

.DEFAULT_GOAL := help
.PHONY: help build run test unit stories boot lint golangci vuln fuzz demo bench soak conformance image image-lock deb clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

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
	@$(MAKE) --no-print-directory lint unit stories boot
	@hwtest/fuzz.sh multicast/norm

lint: ## formatting, vet, staticcheck, code that nothing reaches
	@hwtest/lint.sh

unit: ## unit tests of every package, with the race detector
	CGO_ENABLED=1 $(GO) test -vet=off -race -timeout 10m $(UNITS)

stories: build ## real kernels, foreign clients and servers, at reduced size
	CGO_ENABLED=0 $(GO) test -vet=off -timeout 25m -skip '^TestImage$$' ./hwtest/...

boot: build ## the appliance's image in an emulator: a start, a bad update, a good one
	CGO_ENABLED=0 $(GO) test -vet=off -timeout 30m -v -run '^TestImage$$' ./hwtest

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

image: ## the flashable image and its update file under dist/ (ARCH=amd64|arm64, VERSION, KEY=minisign key)
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/mkimage
	@CGO_ENABLED=0 GOARCH=$(ARCH) $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$(VERSION)" -o $(BIN)/$(ARCH)/ ./cmd/cistern-init ./cmd/cisternd
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN)/mkimage build --arch $(ARCH) --lock image/packages-$(ARCH).json \
		--version $(VERSION) --key $(KEY) --init $(BIN)/$(ARCH)/cistern-init --program bin/cisternd=$(BIN)/$(ARCH)/cisternd --out $(DIST)

image-lock: ## pin the Debian packages of the image anew (ARCH=amd64)
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/mkimage
	@$(BIN)/mkimage lock --arch $(ARCH) --lock image/packages-$(ARCH).json

deb: ## Debian packages of box and agent under dist/ (ARCH=amd64, VERSION)
	@CGO_ENABLED=0 GOARCH=$(ARCH) $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$(VERSION)" -o $(BIN)/$(ARCH)/ ./cmd/cisternd ./cmd/cistern ./cmd/cistern-agent
	@GO=$(GO) image/deb/make.sh $(VERSION) $(ARCH) $(BIN)/$(ARCH) $(DIST)

fuzz: ## every fuzz target for a while (FUZZTIME=60s)
	@hwtest/fuzz.sh

golangci: ## more linters (.golangci.yml); builds golangci-lint first, some minutes
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...

vuln: ## known vulnerabilities in what is called (needs the vulnerability database)
	$(TOOL) govulncheck ./...

clean: ## remove what was built; the data in ./var stays
	rm -rf $(BIN) dist
