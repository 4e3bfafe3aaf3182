#!/usr/bin/env bash
# The whole mesh, end to end, around the real bookstore: builds what the tests need and runs them.
#
#   run-mesh.sh [--as-user] [FILTER…] [-- FLAG…]
#
# --as-user    as an ordinary user, whom root makes for this (weft-test); nothing of the run stays behind
# FILTER       only tests whose names contain one of them: `run-mesh.sh cli:: tour`
# FLAG         for the test program: `--list`, `--skip NAME`, `--exact`; see `--help`
# PROFILE=release tests the release build.
set -euo pipefail
cd "$(dirname "$0")/.."

as_user=
if [ "${1:-}" = --as-user ]; then as_user=yes; shift; fi
if [ -n "$as_user" ] && [ "$(id -u)" != 0 ]; then
    echo "skipped: needs root to become another user; without --as-user the tests run as $(id -un) already"
    exit 0
fi

filters=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
    -*) break ;;
    *) filters+=("$1") ;;
    esac
    shift
done
if [ "${1:-}" = -- ]; then shift; fi
# The names of tests have no blanks.
export WEFT_TEST_FILTERS="${filters[*]}"

export PROFILE=${PROFILE:-dev}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
flag=; folder=debug
if [ "$PROFILE" = release ]; then flag=--release folder=release; fi

cargo build --bin weft $flag
tests=$(cargo test --test mesh $flag --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"name":"mesh".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$tests" ] || { cargo test --test mesh $flag --no-run; exit 1; }
archives=$(realpath "$(examples/bookstore/images.sh)")
tests/mesh/databases.sh "$archives"

if [ -z "$as_user" ]; then
    WEFT_TEST_ARCHIVES=$archives exec "$tests" "$@"
fi

# Two runs would end each other's processes.
exec 9>/tmp/weft-test.lock
flock 9

# What the tests need, where that user can read it.
user=weft-test
place=$(mktemp -d /tmp/weft-test.XXXXXX)
made_user=
clean_up() {
    # Ends what is left where the tests could not: this user and its ids are only for these tests.
    local own first count
    own=$(id -u "$user") first=$(sed -n "s/^$user:\([0-9]*\):.*/\1/p" /etc/subuid | head -1)
    count=$(sed -n "s/^$user:[0-9]*:\([0-9]*\)/\1/p" /etc/subuid | head -1)
    for pid in $(ps -eo pid=,uid= | awk -v own="$own" -v first="${first:-0}" -v count="${count:-0}" \
        '$2 == own || ($2 >= first && $2 < first + count) { print $1 }'); do
        kill -9 "$pid" 2>/dev/null || true
    done
    rm -rf "$place"
    find /tmp -maxdepth 1 -name 'wt-*' -user "$user" -exec rm -rf {} + 2>/dev/null || true
    if [ -n "$made_user" ]; then userdel --remove "$user" 2>/dev/null || true; fi
}
trap clean_up EXIT
if ! id "$user" >/dev/null 2>&1; then
    useradd --create-home --shell /bin/bash "$user"
    made_user=yes
fi
for file in /etc/subuid /etc/subgid; do
    grep -q "^$user:" "$file" 2>/dev/null || echo "$user:700000:65536" >>"$file"
done
mkdir -p "$place/source/tests/mesh" "$place/images"
cp "$target/$folder/weft" "$place/weft"
cp "$tests" "$place/mesh"
cp -r examples docs README.md "$place/source/"
cp tests/mesh/*.yaml "$place/source/tests/mesh/"
cp "$archives"/*.tar "$place/images/"
chown -R "$user:" "$place"

command=$(printf '%q ' "$place/mesh" "$@")
su "$user" 9>&- -c "cd $place && env -u XDG_RUNTIME_DIR HOME=\$(getent passwd $user | cut -d: -f6) \
    WEFT_TEST_FILTERS=$(printf '%q' "$WEFT_TEST_FILTERS") \
    WEFT_TEST_BINARY=$place/weft WEFT_TEST_SOURCE=$place/source WEFT_TEST_ARCHIVES=$place/images $command"
