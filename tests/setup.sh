#!/bin/bash
# Installs what a build needs and is not there: a C compiler, make, libclang, PostgreSQL with its headers, and the
# cargo-pgrx that fits. What is there already costs a moment and prints nothing.
#
# Sourced by the Makefile for what it exports: PATH, PG_CONFIG, PG_MAJOR, and what cargo-pgrx needs. Run by itself it only installs.
# PG_CONFIG chooses another PostgreSQL than the newest that is installed.

set -euo pipefail

readonly PGRX=0.18.1
readonly RUST=1.95
readonly S3S_FS=0.14.1
readonly OLDEST_PG=14 NEWEST_PG=18

say() { printf 'dbmazz: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Runs a command with its output in a file, says every few seconds that it still runs, and shows the file if it fails.
quietly() {
    local what=$1 log status=0 pid started=$SECONDS
    shift
    log=$(mktemp)
    say "$what"
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if (( (SECONDS - started) % 10 == 9 )); then say "... $what ($((SECONDS - started)) s)"; fi
    done
    wait "$pid" || status=$?
    if (( status )); then cat "$log" >&2; rm -f "$log"; fail "could not finish: $what"; fi
    rm -f "$log"
}

as_root() {
    if (( EUID == 0 )); then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "this needs root and there is no sudo: $*"
    fi
}

# Once per run is enough.
update_package_list() {
    [[ -z ${package_list_is_fresh:-} ]] || return 0
    quietly "updating the list of packages" as_root apt-get update -q
    package_list_is_fresh=1
}

install_packages() {
    command -v apt-get >/dev/null || fail "please install these packages (their names are Debian's): $*"
    # The password, if one is asked for, must be asked before the output goes to a file.
    as_root true
    update_package_list
    quietly "installing $*" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

have_libclang() {
    compgen -G "${LIBCLANG_PATH:-/nonexistent}/libclang*.so*" >/dev/null ||
        compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        compgen -G '/usr/lib*/libclang*.so*' >/dev/null
}

# The newest server of Debian's layout that dbmazz knows, else whatever pg_config is on the path.
find_pg_config() {
    local major
    for (( major = NEWEST_PG; major >= OLDEST_PG; major-- )); do
        if [[ -x /usr/lib/postgresql/$major/bin/postgres && -x /usr/lib/postgresql/$major/bin/pg_config ]]; then
            echo "/usr/lib/postgresql/$major/bin/pg_config"
            return
        fi
    done
    command -v pg_config || true
}

major_of() { "$1" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'; }
have_server() { [[ -n $1 && -x $1 && -x $("$1" --bindir)/postgres ]]; }
have_headers() { [[ -f $("$1" --includedir-server)/postgres.h ]]; }

# The major version that this distribution has.
major_of_distribution() {
    local major
    for (( major = NEWEST_PG; major >= OLDEST_PG; major-- )); do
        if apt-cache show "postgresql-$major" >/dev/null 2>&1; then echo "$major"; return; fi
    done
    fail "this distribution has no PostgreSQL between $OLDEST_PG and $NEWEST_PG; set PG_CONFIG to one that is installed"
}

# Rust as new as it must be. A rustup without any toolchain answers nothing.
have_rust() {
    local version
    version=$(rustc --version 2>/dev/null | sed -E 's/^rustc ([0-9]+\.[0-9]+).*/\1/')
    [[ -n $version ]] && printf '%s\n' "$RUST" "$version" | sort -C -V
}
have_lints() { cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; }

set_up_tools() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v make >/dev/null || missing+=(make)
    have_libclang || missing+=(libclang-dev)
    if (( ${#missing[@]} )); then install_packages "${missing[@]}"; fi
}

set_up_rust() {
    export PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    if ! command -v cargo >/dev/null; then
        fail "dbmazz needs Rust $RUST or newer with rustfmt and clippy; please install it with rustup"
    fi
    if ! have_rust; then
        command -v rustup >/dev/null || fail "dbmazz needs Rust $RUST or newer, and this is $(cargo --version)"
        export RUSTUP_TOOLCHAIN=$RUST
        have_rust || quietly "installing Rust $RUST" \
            rustup toolchain install "$RUST" --profile minimal -c rustfmt -c clippy --no-self-update
    fi
    # An installation of the least kind has neither; `make lint` wants both.
    if ! have_lints && command -v rustup >/dev/null; then
        quietly "installing rustfmt and clippy" rustup component add rustfmt clippy
    fi
}

set_up_postgresql() {
    local missing=()
    if [[ -n ${PG_CONFIG:-} ]]; then
        have_server "$PG_CONFIG" || fail "PG_CONFIG is \"$PG_CONFIG\", which leads to no PostgreSQL server"
    fi
    PG_CONFIG=${PG_CONFIG:-$(find_pg_config)}
    if ! have_server "$PG_CONFIG"; then
        if command -v apt-cache >/dev/null && ! apt-cache show postgresql >/dev/null 2>&1; then
            as_root true
            update_package_list
        fi
        PG_MAJOR=$(major_of_distribution)
        missing+=("postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR")
        PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
    elif ! have_headers "$PG_CONFIG"; then
        missing+=("postgresql-server-dev-$(major_of "$PG_CONFIG")")
    fi
    if (( ${#missing[@]} )); then install_packages "${missing[@]}"; fi
    have_server "$PG_CONFIG" && have_headers "$PG_CONFIG" || fail "there is no server with headers for $PG_CONFIG"
    # One name for one installation: Debian's /usr/bin/pg_config is a script that looks for another.
    if [[ -x $("$PG_CONFIG" --bindir)/pg_config ]]; then PG_CONFIG=$("$PG_CONFIG" --bindir)/pg_config; fi
    PG_MAJOR=$(major_of "$PG_CONFIG")
    (( PG_MAJOR >= OLDEST_PG && PG_MAJOR <= NEWEST_PG )) || fail "PostgreSQL $PG_MAJOR is not supported"
    export PG_CONFIG PG_MAJOR
}

set_up_pgrx() {
    local config=${PGRX_HOME:-$HOME/.pgrx}/config.toml
    if [[ $(cargo pgrx --version 2>/dev/null) != "cargo-pgrx $PGRX" ]]; then
        # Not optimized: it runs for moments, and builds in less than half the time.
        quietly "building cargo-pgrx $PGRX" \
            env CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug cargo-pgrx --version "$PGRX" --locked
    fi
    if ! grep -qsxF "pg$PG_MAJOR = \"$PG_CONFIG\"" "$config"; then
        quietly "telling pgrx of PostgreSQL $PG_MAJOR" cargo pgrx init "--pg$PG_MAJOR" "$PG_CONFIG"
    fi
}

# Without this cargo-pgrx links with a flag of its own, for which cargo compiles every dependency once more. Other linkers than
# those of x86_64 may need the flag.
if [[ $(uname -m) == x86_64 ]]; then export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=${CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND-1}; fi

# What only the tests in a server need: an S3 server to export to, and what a user without dbmazz unpacks files with.
set_up_test_servers() {
    command -v zstd >/dev/null || install_packages zstd
    if [[ $(s3s-fs --version 2>/dev/null) != "s3s-fs $S3S_FS" ]]; then
        # Not optimized: it builds in half the time.
        quietly "building s3s-fs $S3S_FS" env CARGO_PROFILE_DEV_DEBUG=0 \
            cargo install --debug s3s-fs --version "$S3S_FS" --locked --features binary
    fi
}

set_up_tools
set_up_rust
set_up_postgresql
set_up_pgrx
if [[ ${DBMAZZ_SETUP:-} == tests ]]; then set_up_test_servers; fi
