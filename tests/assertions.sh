#!/bin/bash
# Runs a command with a PostgreSQL that checks itself: the distribution's source, built with --enable-cassert. Memory that
# was freed is overwritten, and a failed assertion ends the server. Source, build and everything compiled against it stay
# below the target directory, so that only the first time is long.
#
# tests/assertions.sh <target directory> <command ...>

set -euo pipefail

[[ $# -ge 2 ]] || { echo "usage: tests/assertions.sh <target directory> <command ...>" >&2; exit 2; }
cd "$(dirname "$0")/.."
source tests/setup.sh

home=$(realpath -m "$1")/assertions
shift
mkdir -p "$home"
# Root's tests run the servers as the user postgres, who may not be let into root's directories.
if (( EUID == 0 )) && ! su postgres -s /bin/sh -c "test -x '$home'" 2>/dev/null; then
    home=/var/tmp/dbmazz-assertions
    mkdir -p "$home"
fi
prefix=$home/postgresql-$PG_MAJOR

# The distribution's archives as sources, beside the lists of the system: that needs neither root nor a change of its
# configuration.
fetch_source() {
    local lists=$home/apt entry
    rm -rf "$lists" "$home/source"
    mkdir -p "$lists"/{sources,lists/partial,cache/archives/partial} "$home/source"
    for entry in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -f $entry ]] || continue
        sed -nE 's/^deb(-src)?[[:space:]]/deb-src /p' "$entry" | sort -u >"$lists/sources/$(basename "$entry" .list).list"
    done
    for entry in /etc/apt/sources.list.d/*.sources; do
        [[ -f $entry ]] || continue
        sed -E 's/^Types:.*/Types: deb-src/' "$entry" >"$lists/sources/$(basename "$entry")"
    done
    local options=(
        -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$lists/sources"
        -o Dir::State::Lists="$lists/lists" -o Dir::Cache="$lists/cache" -o APT::Sandbox::User=
    )
    quietly "asking for the source of PostgreSQL $PG_MAJOR" apt-get -q "${options[@]}" update
    say "fetching the source of PostgreSQL $PG_MAJOR"
    # The newest first. A mirror of the archives may not have it yet.
    local version versions
    versions=$(apt-cache "${options[@]}" showsrc --only-source "postgresql-$PG_MAJOR" 2>/dev/null |
        sed -n 's/^Version: //p' | sort -Vru)
    for version in $versions; do
        if (cd "$home/source" && apt-get -q "${options[@]}" source --download-only \
            "postgresql-$PG_MAJOR=$version" >>"$home/fetch.log" 2>&1); then
            (cd "$home/source" && tar --strip-components=1 -xf ./*.orig.tar.*)
            return
        fi
        say "the source of version $version cannot be fetched"
    done
    cat "$home/fetch.log" >&2
    fail "could not fetch the source of PostgreSQL $PG_MAJOR"
}

# What the tests do not use is left out, so that a compiler and make are enough.
build() {
    local log=$home/build.log
    (
        cd "$home/source"
        ./configure --prefix="$prefix" --enable-cassert --enable-debug --without-readline --without-zlib \
            $( (( PG_MAJOR < 16 )) || echo --without-icu ) CFLAGS='-O1 -g -fno-omit-frame-pointer'
        make -s -j"$(nproc)" MAKELEVEL=0 -C src all
        make -s MAKELEVEL=0 -C src install
    ) >"$log" 2>&1 || { tail -30 "$log" >&2; return 1; }
}

if [[ ! -x $prefix/bin/pg_ctl ]]; then
    command -v apt-get >/dev/null || fail "please set PG_CONFIG to a PostgreSQL with assertions and run make test-server"
    command -v perl >/dev/null || install_packages perl
    command -v dpkg-source >/dev/null || install_packages dpkg-dev
    fetch_source
    quietly "building PostgreSQL $PG_MAJOR with assertions" build
fi

export PG_CONFIG=$prefix/bin/pg_config PGRX_HOME=$home/pgrx CARGO_TARGET_DIR=$home/target
mkdir -p "$PGRX_HOME"
exec "$@"
