#!/bin/bash
# Runs each fuzz target for so many seconds: tests/fuzz/run.sh <directory of the programs> <directory of the inputs> <seconds>
#
# Inputs that reached something new are kept, and the next run begins with them. Output is shown only of a target that
# has found something; the input that did it lies beside the kept ones.

set -euo pipefail
cd "$(dirname "$0")/../.."
programs=$1 inputs=$2 seconds=$3

# A message of each kind, so that the first seconds are not spent on finding them.
first_messages() {
    printf 'B\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\3' >"$1/begin"
    printf 'C\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3' >"$1/commit"
    printf 'R\0\0\0\1public\0item\0d\0\2\1id\0\0\0\0\27\377\377\377\377\0v\0\0\0\0\31\377\377\377\377' >"$1/relation"
    printf 'I\0\0\0\1N\0\4nut\0\0\0\1xb\0\0\0\1y' >"$1/insert"
    printf 'U\0\0\0\1O\0\1t\0\0\0\1xN\0\1t\0\0\0\1y' >"$1/update"
    printf 'D\0\0\0\1K\0\1t\0\0\0\1x' >"$1/delete"
    printf 'T\0\0\0\1\0\0\0\0\1' >"$1/truncate"
}

run() {
    local name=$1 log=$inputs/$1.log
    shift
    mkdir -p "$inputs/$name"
    if ! "$programs/fuzz_$name" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$inputs/$name-" "$inputs/$name" "$@" >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
    echo "fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
}

mkdir -p "$inputs/pgoutput"
first_messages "$inputs/pgoutput"
run pgoutput
run answers tests/golden
run options
