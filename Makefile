# Everything a user or developer runs. `make run` and `make test` need root
# (network namespaces, AF_XDP) and Go 1.21 or newer, which fetches the toolchain
# that go.mod names.

GO       ?= go
BIN      := bin
COMMANDS := junction_run junctiond netserver junction_ctl junction_policy junction_bench
# Packages that boot the Sentry or drive whole programs run without the race
# detector: the platform's assembly and the detector's memory map exclude each other.
# The boundary's cannot drop privileges of all threads in a program with cgo.
NORACE   := junction/libos junction/libos/boundary junction/test/e2e junction/internal/bench

# A test that failed runs once more, alone, and the summary shows both runs: this
# is a machine shared with others, and the tests' clients, kernels and clocks are
# real. RERUN=0 leaves it at the first.
RERUN    ?= 1
GOTEST   := $(GO) tool gotestsum --format testname --rerun-fails=$(RERUN) --rerun-fails-max-failures 3

# Static binaries and tests of them; the race detector alone needs cgo.
export CGO_ENABLED := 0

.PHONY: all deps build run test race e2e stress stress-ring stress-switch fuzz bench sched lint man clean

all: build

deps: ## Debian packages that tests and demo need; does nothing when they are there
	./scripts/deps.sh

# The link address and the heap's base keep junction_run's own memory away from
# where programs lie that execute in its address space (libos/engine).
build: ## static binaries in bin/
	GOEXPERIMENT=norandomizedheapbase64 $(GO) build -trimpath -buildvcs=auto -ldflags '-s -w -T 0x60001000' -o $(BIN)/ $(addprefix ./cmd/,$(COMMANDS))

run: deps build ## the main job: servers in an instance on its own NIC queues, clients outside; then switched between modes
	$(BIN)/junction_bench demo --junction-run $(BIN)/junction_run

test: deps ## all tests, unit to end-to-end
	$(GO) vet ./...
	$(GOTEST) --packages ./... -- -timeout 45m

race: deps ## the tests under the race detector, where it can run
	CGO_ENABLED=1 $(GOTEST) --packages "$$($(GO) list ./... | grep -vxF $(addprefix -e ,$(NORACE)) | tr '\n' ' ')" -- -race -short -timeout 20m

e2e: deps ## only the end-to-end tests
	$(GOTEST) --packages ./test/e2e -- -timeout 45m

stress: deps ## the engines under stress for STRESS
	JUNCTION_STRESS=$(or $(STRESS),10m) $(GO) test -timeout 3h -v -run 'TestStress$$' ./test/e2e

stress-ring: ## RING messages through rings whose sides sleep and wake at random: none is lost
	JUNCTION_RING_MESSAGES=$(or $(RING),1000000000) $(GO) test -timeout 3h -v -run 'TestNoLostWakeUp$$' ./ipc

stress-switch: deps ## an instance switched SWITCHES times each way under each load, or LOAD (redis, dedicated, bulk, nginx, udp) alone
	JUNCTION_E2E_SWITCHES=$(or $(SWITCHES),1000) JUNCTION_E2E_ENGINE=$(or $(ENGINE),inproc) \
		$(GO) test -timeout 6h -v -run 'TestSwitchUnderLoad$$/^$(or $(LOAD),.*)$$' ./test/e2e

fuzz: ## each fuzz target for FUZZTIME
	./scripts/fuzz.sh $(or $(FUZZTIME),30s)

bench: deps build build/runsc ## benchmarks: tables; build/bench.json, server.json, switch.json, sched-live.json and micro.json, with .png
	$(GO) test -run '^$$' -bench . -benchmem ./direct/... ./switch/... ./ipc ./portmap/... ./libos/netstack ./internal/lab/impair
	$(BIN)/junction_bench run --junction-run $(BIN)/junction_run --runsc build/runsc \
		--json build/bench.json --plot build/bench.png --date "$$(date -I)"
	$(BIN)/junction_bench server --junction-run $(BIN)/junction_run \
		--json build/server.json --plot build/server.png --date "$$(date -I)"
	$(BIN)/junction_bench switch --junction-run $(BIN)/junction_run \
		--json build/switch.json --plot build/switch.png --date "$$(date -I)"
	$(BIN)/junction_bench sched --live --junction-run $(BIN)/junction_run \
		--json build/sched-live.json --plot build/sched-live.png --date "$$(date -I)"
	$(BIN)/junction_bench micro --junction-run $(BIN)/junction_run --runsc build/runsc \
		--json build/micro.json --plot build/micro.png --date "$$(date -I)"

sched: build ## policies of core scheduling compared in the simulator: tables; build/sched.json, .png
	mkdir -p build
	$(BIN)/junction_bench sched --json build/sched.json --plot build/sched.png

build/runsc: internal/bench/runsc/go.mod ## gVisor's own runtime, of the version that libos uses
	$(GO) build -C internal/bench/runsc -ldflags '-s -w' -o $(CURDIR)/$@ gvisor.dev/gvisor/runsc

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

man: ## man pages in build/man
	$(GO) run ./cmd/junction_run/internal/man build/man
	$(GO) run ./cmd/junctiond man build/man
	$(GO) run ./cmd/junction_ctl man build/man
	$(GO) run ./cmd/junction_policy man build/man

clean:
	rm -rf $(BIN) build
