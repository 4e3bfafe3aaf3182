# The commands of a working day. `make demo` shows what weft is; `make test` is what has to pass.

PROFILE ?= release
CARGO ?= cargo
# The ordinary user that root tests as; scripts/setup.sh makes it.
export WEFT_TEST_USER ?= weft-test
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Peers of the tests that the machine does not have are installed here.
export PATH := $(abspath $(TARGET))/peers/bin:$(PATH)

# A release is compiled by the profile that `make profile` has made; without one where blanks in the path would end the flag.
PROFILED := $(RUSTFLAGS) $(if $(word 2,$(CURDIR)),,-Cprofile-use=$(CURDIR)/bench/release.profdata -Cllvm-args=-no-pgo-warn-mismatch)
demo build: export RUSTFLAGS := $(if $(filter release,$(PROFILE)),$(PROFILED),$(RUSTFLAGS))
bench: export RUSTFLAGS := $(PROFILED)

.PHONY: demo demo-down test setup setup-test build fmt fmt-check clippy doc deny unit conformance peers e2e e2e-tls e2e-user fuzz soak bench bench-guard bench-record profile help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: ## build everything, start the bookstore in the mesh, send traffic, show what to try next
	@PROFILE=$(PROFILE) bash examples/bookstore/demo.sh up

demo-down: ## take the bookstore down again; nothing stays behind
	@PROFILE=$(PROFILE) bash examples/bookstore/demo.sh down

setup: ## install the system packages that weft needs, where they are missing
	@bash scripts/setup.sh

setup-test: ## install what the tests need besides
	@bash scripts/setup.sh --test

build: ## build weft
	$(CARGO) build --bin weft $(if $(filter release,$(PROFILE)),--release)

test: setup-test fmt-check clippy doc deny unit bench-guard conformance peers e2e e2e-tls e2e-user ## everything that has to pass

fmt: ## format the code
	$(CARGO) fmt --all

fmt-check: ## is the code formatted?
	$(CARGO) fmt --all --check

clippy: ## lints, as errors
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: ## the documentation builds without warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

deny: $(TARGET)/tools/bin/cargo-deny ## licences, sources, and crates that must not be there; lock files are whole
	$< check --hide-inclusion-graph bans licenses sources
	$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

$(TARGET)/tools/bin/cargo-deny:
	$(CARGO) install cargo-deny --version 0.20.2 --locked --debug --quiet --root $(TARGET)/tools

unit: ## unit tests, the tests of each crate, and the structure
	$(CARGO) test --workspace --exclude weft
	$(CARGO) test -p weft --bin weft --test architecture

conformance: ## the proxy against Envoy: the same configurations and bytes through both
	$(CARGO) test -p weft --test conformance

peers: ## the proxy between real clients and real servers
	$(CARGO) test -p weft --test peers

e2e: ## the whole mesh around the real bookstore, as the current user
	bash tests/run-mesh.sh

e2e-tls: ## what sidecars say to each other, with TLS in place of local channels, and all of it shares connections
	WEFT_LOCAL_CHANNELS=false WEFT_SHARED_CONNECTIONS=always bash tests/run-mesh.sh traffic:: protocols:: resilience:: security::

e2e-user: ## the same as an ordinary user (needs root, to become one)
	bash tests/run-mesh.sh --as-user

# What a benchmark is made of, and how its figures are to be read: bench/README.md. Other proxies are optimised builds, so weft
# is compared as one, whatever PROFILE says.
COUNTED_PROFILE ?= dev
COUNTED_WEFT = $(TARGET)/$(if $(filter dev,$(COUNTED_PROFILE)),debug,$(COUNTED_PROFILE))/weft

bench: ## weft beside HAProxy, nginx and Envoy (needs root; BENCH="-s h1 -p envoy,weft" for less)
	@bash scripts/setup.sh --bench
	$(CARGO) build --bin weft --release
	WEFT_BIN=$(TARGET)/release/weft $(TARGET)/peers/envoy/bin/python bench/bench.py -o $(TARGET)/bench.json $(BENCH)
	$(if $(BENCH),,WEFT_BIN=$(TARGET)/release/weft $(TARGET)/peers/envoy/bin/python bench/count.py -s h1,h2,tcp -p haproxy,envoy)

bench-guard: ## does a request cost more instructions, allocations or system calls than bench/counts.json says?
	@bash scripts/setup.sh --bench
	$(CARGO) build --bin weft --profile $(COUNTED_PROFILE)
	WEFT_BIN=$(COUNTED_WEFT) WEFT_PROFILE=$(COUNTED_PROFILE) python3 bench/count.py

bench-record: ## write bench/counts.json anew
	@bash scripts/setup.sh --bench
	$(CARGO) build --bin weft --profile $(COUNTED_PROFILE)
	WEFT_BIN=$(COUNTED_WEFT) WEFT_PROFILE=$(COUNTED_PROFILE) python3 bench/count.py --record

profile: ## make the profile anew that a release is compiled by (needs root, and llvm-tools of the compiler)
	@bash scripts/profile.sh

fuzz: ## feed every decoder with what nobody sends, FUZZ_SECONDS (an hour) each; FUZZ_TARGETS names some
	@CARGO_TARGET_DIR=$(abspath $(TARGET)) bash fuzz/run.sh $(FUZZ_TARGETS)

soak: export SOAK_SECONDS ?= 1800
soak: export CARGO_PROFILE_RELEASE_LTO = off
soak: export CARGO_PROFILE_RELEASE_CODEGEN_UNITS = 16
soak: ## one proxy under everything at once for SOAK_SECONDS (half an hour); it must end as it began
	$(CARGO) test --release -p weft-proxy --test soak
