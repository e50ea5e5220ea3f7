#!/bin/bash
# The compiler with coverage for libFuzzer, of dbmazz alone: what it depends on stays as every other build has it, and
# is not compiled anew. Called by cargo as RUSTC_WORKSPACE_WRAPPER.
exec "$@" -Cpasses=sancov-module -Cdebug-assertions -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
