#!/bin/bash
# Runs a command that starts servers, and does not end before they have: whatever the command leaves behind when it is
# interrupted stops and removes itself within moments (tests/harness/guard.rs); this waits for it.

set -uo pipefail

directory=$(mktemp -d /tmp/dbmazz.XXXXXX)
chmod 1777 "$directory"
export DBMAZZ_TEST_DIR=$directory

interrupted=
trap 'interrupted=1; kill -TERM -- "-$command" 2>/dev/null' INT TERM HUP

# A session of its own: the terminal's Ctrl-C reaches this script alone, which passes it on to all of the command, once.
setsid "$@" </dev/null &
command=$!
# A trapped signal ends `wait` early, so it is repeated until the command is gone.
while :; do
    wait "$command"
    status=$?
    kill -0 "$command" 2>/dev/null || break
done

# A cluster of a hundred databases has a hundred thousand files; a busy disk takes a minute to remove them.
for (( tenths = 0; tenths < 1800; tenths++ )); do
    if rmdir "$directory" 2>/dev/null; then break; fi
    if (( tenths == 20 )); then echo "dbmazz: waiting for servers to stop and remove their files" >&2; fi
    sleep 0.1
done
if [[ -d $directory ]]; then
    echo "dbmazz: servers left something in $directory" >&2
    exit 1
fi
if [[ $interrupted ]]; then exit 130; fi
exit "$status"
