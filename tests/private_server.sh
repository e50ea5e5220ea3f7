#!/bin/bash
# Makes a copy of the PostgreSQL server, with an extension in it that is built for tests, or with PRIVATE_FEATURE=discard for
# benchmarks, and points PG_CONFIG at it.
#
# The feature of that build must never get into a server that somebody uses, also not when a run of the tests is
# interrupted. So nothing is installed: the programs, libraries and shared files of the server are copied into a directory
# of their own, which PostgreSQL allows, because it looks for its files beside its programs. As a by-product the tests need
# no right to write into the installation.
#
# Sourced by recipes of the Makefile, after tests/setup.sh. The copy is removed when the shell ends.

private=$(mktemp -d /tmp/dbmazz-server.XXXXXX)
trap 'rm -rf "$private" "$private.extension"' EXIT
# The servers run as another user when the tests run as root.
chmod 755 "$private"

for what in bindir pkglibdir sharedir; do
    from=$("$PG_CONFIG" "--$what")
    mkdir -p "$private$from"
    cp -a "$from/." "$private$from/"
done

# Built against the installation itself, so that no dependency is compiled anew.
cargo pgrx package --no-default-features --features "pg$PG_MAJOR ${PRIVATE_FEATURE:-failpoints}" --pg-config "$PG_CONFIG" \
    --out-dir "$private.extension" >"$private/log" 2>&1 || { cat "$private/log" >&2; exit 1; }
cp -a "$private.extension/." "$private/"
export PG_CONFIG=$private$("$PG_CONFIG" --bindir)/pg_config
