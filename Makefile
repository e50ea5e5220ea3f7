# dbmazz: what to type. `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu machine.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# Installs what is missing, silent when nothing is; gives PATH, PG_CONFIG and PG_MAJOR to the rest of a recipe.
SETUP := source tests/setup.sh
# One profile for everything, so that dependencies compile once.
CARGO_EXTENSION := --release --no-default-features --features "pg$$PG_MAJOR"
# A failed test says where; a backtrace through the harness adds nothing.
export RUST_BACKTRACE ?= 0
# Tests that run side by side. They wait more than they compute.
TEST_THREADS ?= 6

.PHONY: help demo test lint test-engine test-server test-long test-assert test-sanitized fuzz soak bench bench-quick bench-engine bench-stream bench-export install build setup clean

help:
	@echo "make demo          mirror a million accounts while pgbench writes; DEMO_EXIT=1 ends by itself"
	@echo "make test          format, lints, the engine's tests, the tests in a real server"
	@echo "make install       build the extension and install it into the PostgreSQL of pg_config"
	@echo "make test-engine   tests without a server        make test-server   tests in a server"
	@echo "make test-long     the crash tests under a load of 60 seconds each"
	@echo "make soak          an hour of writing while anything may fail, then 20 seeds of DDL among writes; DBMAZZ_SOAK_SECONDS, DBMAZZ_MIXED_SEEDS"
	@echo "make test-assert   test-server in a PostgreSQL that is built with assertions, from the distribution's source"
	@echo "make test-sanitized  the engine's tests under AddressSanitizer"
	@echo "make fuzz          parser, reader of answers and options, FUZZ_SECONDS each, under coverage"
	@echo "make bench         every measurement beside its baseline; BENCH=word chooses; BENCH_RUNS, BENCH_SCALE"
	@echo "make bench-quick   what targets are set for, in minutes"
	@echo "make bench-engine  encoder, compaction, parser, compression, without a server"

setup:
	@$(SETUP)

build:
	@$(SETUP); cargo build $(CARGO_EXTENSION) --lib

install:
	@$(SETUP); \
	sudo=; [[ -w $$("$$PG_CONFIG" --pkglibdir) ]] || sudo=--sudo; \
	cargo pgrx install $(CARGO_EXTENSION) --pg-config "$$PG_CONFIG" $$sudo

demo: install
	@$(SETUP); \
	cargo build --release --example starrocks_standin --example demo; \
	target=$$(cargo metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/'); \
	exec tests/guarded.sh "$$target/release/examples/demo"

test: lint test-engine test-sanitized fuzz test-server

lint:
	@$(SETUP); \
	cargo fmt --check; \
	cargo clippy --release --all-targets -- -D warnings; \
	cargo clippy --release --test server --bench measure -- -D warnings; \
	cargo clippy $(CARGO_EXTENSION) --lib -- -D warnings; \
	cargo clippy --release --no-default-features --features "pg$$PG_MAJOR failpoints" --lib -- -D warnings; \
	cargo clippy --release --no-default-features --features "pg$$PG_MAJOR discard" --lib -- -D warnings

test-engine:
	@$(SETUP); \
	cargo build --release --examples; \
	cargo test --release

test-server:
	@export DBMAZZ_SETUP=tests; $(SETUP); source tests/private_server.sh; \
	cargo build --release --example starrocks_standin; \
	cargo test --release --test server --no-run; \
	tests/guarded.sh cargo test --release --test server -- --test-threads=$(TEST_THREADS)

test-long:
	@export DBMAZZ_SETUP=tests; $(SETUP); source tests/private_server.sh; \
	cargo build --release --example starrocks_standin; \
	DBMAZZ_TEST_SECONDS=$${DBMAZZ_TEST_SECONDS:-60} \
		tests/guarded.sh cargo test --release --test server -- --test-threads=1 crash::

soak:
	@$(SETUP); source tests/private_server.sh; \
	cargo build --release --example starrocks_standin; \
	DBMAZZ_SOAK_SECONDS=$${DBMAZZ_SOAK_SECONDS:-3600} \
		tests/guarded.sh cargo test --release --test server -- --nocapture soak::; \
	DBMAZZ_MIXED_SEEDS=$${DBMAZZ_MIXED_SEEDS:-5} \
		tests/guarded.sh cargo test --release --test server -- --test-threads=2 mixed::

test-assert:
	@$(SETUP); \
	target=$$(cargo metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/'); \
	exec tests/assertions.sh "$$target" $(MAKE) test-server

# How long each fuzz target runs.
FUZZ_SECONDS ?= 20

fuzz:
	@$(SETUP); \
	target=$$(cargo metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/'); \
	RUSTC_WORKSPACE_WRAPPER="$$PWD/tests/fuzz/rustc.sh" cargo build --release --features fuzz \
		--example fuzz_pgoutput --example fuzz_answers --example fuzz_options; \
	tests/fuzz/run.sh "$$target/release/examples" "$$target/fuzz" "$(FUZZ_SECONDS)"

test-sanitized:
	@$(SETUP); RUSTC_WORKSPACE_WRAPPER="$$PWD/tests/sanitizer.sh" cargo test --release --lib

bench-engine:
	@$(SETUP); cargo bench --bench engine

# Words that choose measurements by their names: make bench BENCH=snapshot
BENCH ?=
# A server of its own, whose extension can also throw loads away.
MEASURE = $(if $(BENCH),,cargo bench --profile release --bench engine -- 'narrow/encode, compact, seal';) \
	source tests/private_server.sh; \
	cargo build --release --example starrocks_standin; \
	cargo bench --profile release --bench measure --no-run; \
	tests/guarded.sh cargo bench --profile release --bench measure --

bench: export PRIVATE_FEATURE := discard
bench:
	@$(SETUP); $(MEASURE) $(BENCH)

bench-quick: export PRIVATE_FEATURE := discard
bench-quick:
	@$(SETUP); $(MEASURE) --quick $(BENCH)

bench-stream:
	@$(MAKE) bench BENCH=stream

bench-export:
	@$(MAKE) bench BENCH=export

clean:
	@$(SETUP); cargo clean
