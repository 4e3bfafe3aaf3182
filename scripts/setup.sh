#!/usr/bin/env bash
# Installs the Debian packages that weft needs, where they are missing and where that is allowed.
#   setup.sh          what weft itself needs
#   setup.sh --test   what its tests need besides
set -euo pipefail

# command:package
needs="iptables-restore:iptables ip6tables-restore:iptables newuidmap:uidmap newgidmap:uidmap cc:gcc make:make dpkg-deb:dpkg"
if [ "${1:-}" = --test ]; then
    needs="$needs ip:iproute2 curl:curl promtool:prometheus tcpdump:tcpdump python3:python3 kubectl:kubernetes-client"
fi

PATH=$PATH:/usr/sbin:/sbin
missing=$(for need in $needs; do
    command -v "${need%%:*}" >/dev/null || echo "${need##*:}"
done | sort -u | tr '\n' ' ')
# Images are made from Debian packages, whose lists a fresh machine does not have yet.
[ -n "$(find /var/lib/apt/lists -name '*Packages*' -print -quit 2>/dev/null)" ] || lists=missing
[ -n "${missing// /}${lists:-}" ] || exit 0

become=
if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then become="sudo -n"; else
        echo "weft needs these packages: ${missing:-none}. An administrator installs them with" >&2
        echo "    apt-get update && apt-get install --yes $missing" >&2
        [ -z "${missing// /}" ] && exit 0
        exit 1
    fi
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing: ${missing:-package lists}" >&2
$become apt-get update -qq
[ -z "${missing// /}" ] || $become apt-get install --yes --no-install-recommends -qq $missing >/dev/null
