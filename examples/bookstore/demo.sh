#!/usr/bin/env bash
# `make demo` and `make demo-down`: the bookstore in the mesh, from a fresh clone, as root or as an ordinary user.
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${PROFILE:-release}
target=${CARGO_TARGET_DIR:-target}
flag=; folder=debug
if [ "$profile" = release ]; then flag=--release folder=release; fi
weft=$target/$folder/weft
compose=examples/bookstore/compose.yaml

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
tell() { printf '$ weft %s\n' "$*"; "$weft" "$@"; }

case "${1:-up}" in
down)
    [ -x "$weft" ] || { echo "weft is not built: nothing to take down"; exit 0; }
    exec "$weft" down -f "$compose" -v
    ;;
up) ;;
*) echo "usage: demo.sh up|down" >&2; exit 2 ;;
esac

say "1. System packages"
bash scripts/setup.sh
say "2. Building weft ($profile)"
cargo build --bin weft $flag
say "3. Checking this machine"
"$weft" check
say "4. The images: the bookstore's own from a Dockerfile, Redis and nginx from Debian's packages"
archives=$(PROFILE=$profile examples/bookstore/images.sh)
for name in redis nginx; do "$weft" image import --quiet "$archives/$name.tar"; done
"$weft" image build --quiet -t bookstore/services:dev examples/bookstore/image
"$weft" image build --quiet -t bookstore/static:dev examples/bookstore/static

say "5. weft up"
began=$(date +%s%N)
"$weft" up -d -f "$compose"
printf 'from weft up to all pods ready: %s ms\n' $((($(date +%s%N) - began) / 1000000))

say "6. The application, through the mesh"
"$weft" ps -o wide
address=127.0.0.1:${BOOKSTORE_PORT:-18080}
tell exec front -- /bin/bookstore get http://127.0.0.1:8080/
tell exec front -- /bin/bookstore load http://reviews:8080/reviews/dune 100

say "7. A policy: nine of ten readers get the new reviews"
tell split reviews reviews-v1=10 reviews-v2=90
tell exec front -- /bin/bookstore load http://reviews:8080/reviews/dune 100
tell delete httproute/reviews

say "8. Trouble on purpose: three of ten calls to ratings fail"
"$weft" fault ratings --abort 503 --percent 30 >/dev/null
tell exec front -- /bin/bookstore load http://127.0.0.1:8080/api/books/dune 60
tell fault ratings --clear
tell exec front -- /bin/bookstore load http://127.0.0.1:8080/api/books/dune 60

say "What the sidecars have seen of all that"
"$weft" top --no-stream

say "The mesh is running"
"$weft" status
cat <<TOUR

  the shop            http://$address/
  the commands below  export PATH=$(dirname "$(realpath "$weft")"):\$PATH
  what runs           weft ps -o wide
  golden signals      weft top
  break something     weft fault ratings --abort 503 --percent 30
  see the damage      weft exec front -- /bin/bookstore load http://127.0.0.1:8080/api/books/dune 100
  and mend it         weft fault ratings --clear
  what a sidecar has  weft proxy-config routes front
  take it all down    make demo-down
TOUR
