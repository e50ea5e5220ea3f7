#!/bin/bash
# The compiler with AddressSanitizer, which the stable one has but does not promise, for dbmazz alone: what it depends on
# is not compiled anew. Called by cargo as RUSTC_WORKSPACE_WRAPPER.
RUSTC_BOOTSTRAP=1 exec "$@" -Zsanitizer=address -Cdebug-assertions
