#!/usr/bin/env bash
# Makes bench/release.profdata anew: what the compiler is told, for a release, of how often each branch is taken (profile-guided
# optimisation). Builds a release that counts, puts it under the load of the benchmarks, and merges what it has counted.
#
# Needs root, as the benchmarks do, and the tools of the compiler's own version: rustup component add llvm-tools. A profile is of
# one version of the compiler and of the settings of [profile.release]; with others it has no effect. Of what has changed since,
# a function alone is compiled as without one.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
counts=$target/profile
profdata=$(echo "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata)
if [ ! -x "$profdata" ]; then
    echo "there is no llvm-profdata of this compiler: install it with 'rustup component add llvm-tools'" >&2
    exit 1
fi
bash scripts/setup.sh --bench

# What sidecars do most: requests of both versions of HTTP, in the clear and through a pair with mTLS, alone and sharing a
# connection, and bytes in quantity.
scenarios=h1,h1-post,h1-close,h1-large,h1-all,h1-mtls,h2,h2-mtls,h2-stream,h2-stream-large,h2-stream-mtls
scenarios=$scenarios,tcp-rr,tcp-down,tcp-mtls-rr,tcp-mtls-down,tcp-mtls-conn,tcp-mtls-resume,pod-tcp-conn,start,start-many

# In a place of its own: the usual one would have to be built anew afterwards.
RUSTFLAGS="-Cprofile-generate=$counts" cargo build --bin weft --release --target-dir "$target/instrumented"
# Build scripts and macros have counted as well.
rm -rf "$counts"
WEFT_BIN=$target/instrumented/release/weft \
    "$target/peers/envoy/bin/python" bench/bench.py -s "$scenarios" -p weft,weft-shared -r 1 -d 2
# Without what was never called, which is nine tenths of it.
"$profdata" merge --sparse --output bench/release.profdata "$counts"
ls -l bench/release.profdata
