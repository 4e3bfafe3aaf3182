#!/usr/bin/env bash
# Makes what the bookstore's images are built from: its own binary, linked statically, and archives of Redis and nginx
# out of Debian packages. Prints the folder of the archives. Does only what is not done yet.
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${PROFILE:-release}
target=${CARGO_TARGET_DIR:-target}
archives=${BOOKSTORE_ARCHIVES:-$target/images}
mkdir -p "$archives"

flag=; folder=debug
if [ "$profile" = release ]; then flag=--release folder=release; fi
cargo rustc --quiet -p bookstore --bin bookstore $flag -- -C target-feature=+crt-static >&2
cmp -s "$target/$folder/bookstore" examples/bookstore/image/bookstore ||
    cp "$target/$folder/bookstore" examples/bookstore/image/bookstore

environment='"Env":["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]'
[ -e "$archives/redis.tar" ] || examples/bookstore/images/debian-image.sh "$archives/redis.tar" bookstore/redis:12 \
    "{$environment,\"Cmd\":[\"redis-server\",\"--protected-mode\",\"no\",\"--save\",\"\"],\"ExposedPorts\":{\"6379/tcp\":{}}}" \
    redis-server >&2
[ -e "$archives/nginx.tar" ] || examples/bookstore/images/debian-image.sh "$archives/nginx.tar" bookstore/nginx:12 \
    "{$environment,\"Cmd\":[\"nginx\",\"-g\",\"daemon off;\"],\"ExposedPorts\":{\"80/tcp\":{}}}" nginx >&2
echo "$archives"
