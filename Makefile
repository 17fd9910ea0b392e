# The two commands of a fresh machine are `make demo` and `make test`. Both install what is missing and
# say so; everything they build or fetch lies below $XDG_CACHE_HOME/terrace (or ~/.cache/terrace).
SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/terrace
export CARGO_TARGET_DIR ?= $(CACHE)/target
export TERRACE_TOOLS := $(CACHE)/tools
export PATH := $(PATH):$(HOME)/.cargo/bin
SAME_TOOLCHAIN := $(shell .ci/toolchain same)
ifneq ($(SAME_TOOLCHAIN),)
export RUSTUP_TOOLCHAIN := $(SAME_TOOLCHAIN)
endif
DEMO_ARGS ?=
BENCH_ARGS ?=
COLD_ARGS ?=
KILLS_ARGS ?=

.PHONY: help build test lint demo bench bench-cold bench-kills clean-cache toolchain

help:
	@echo 'make demo         build, start a store and a catalog, sync tables, read them by name and with SQL'
	@echo '                  (DEMO_ARGS=--once ends by itself)'
	@echo 'make test         everything that CI runs, with real S3, HDFS and shared file system servers'
	@echo 'make build        the terrace binary'
	@echo 'make lint         formatting and clippy'
	@echo 'make bench        the read suites, paired with a native directory (BENCH_ARGS=...)'
	@echo 'make bench-cold   cold reads, beside the client libraries alone (COLD_ARGS=...)'
	@echo 'make bench-kills  what kill -9 of the worker costs applications (KILLS_ARGS=...)'
	@echo 'make clean-cache  removes $(CACHE)'

toolchain:
	@.ci/packages build
	@.ci/toolchain
	@.ci/checkout

build: toolchain
	cargo build --locked --bin terrace
	@echo "$(CARGO_TARGET_DIR)/debug/terrace"

lint: toolchain
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

test: toolchain
	@.ci/packages test
	@.ci/test

demo: build
	@.ci/packages demo
	@deploy/demo/demo.py $(DEMO_ARGS)

bench: build
	@deploy/demo/bench.py $(BENCH_ARGS)

bench-cold: build
	@.ci/packages demo
	@deploy/demo/cold.py $(COLD_ARGS)

bench-kills: toolchain
	@deploy/demo/kills.py $(KILLS_ARGS)

clean-cache:
	rm -rf $(CACHE)
