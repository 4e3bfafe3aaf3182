#!/usr/bin/env bash
# Makes an OCI archive out of Debian packages: the packages named, what they depend on, and nothing else.
# Needs apt-get with its lists (`apt-get update`), dpkg-deb and tar; no root, no registry, no Docker.
#
#   debian-image.sh OUT.tar REFERENCE 'JSON OF THE IMAGE CONFIG' [--files DIR] PACKAGE...
#
# Example:
#   debian-image.sh redis.tar bookstore/redis:12 '{"Cmd":["redis-server"]}' redis-server
set -euo pipefail

out=$(realpath -m "$1") reference=$2 config=$3
shift 3
files=
if [ "${1:-}" = --files ]; then files=$(realpath "$2"); shift 2; fi

# What only matters to a machine that is administered, not to a container that runs one program.
left_out='^(adduser|passwd|login|debconf|dpkg|perl-base|perl|perl-modules-.*|libperl.*|libllvm.*|libz3-.*|locales|usrmerge|ssl-cert|init-system-helpers|sysvinit-utils|lsb-base|tar|iproute2|libpam-.*|mount|util-linux.*|libdebconf.*|logrotate|cron.*|mawk|base-passwd|media-types|libtext-.*|lib.*-perl|ucf|procps|sensible-utils|e2fsprogs|libbpf.*|libelf1|libmnl0|libxtables12|libsemanage.*|libsepol.*)$'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/debs" "$work/root" "$work/oci/blobs/sha256"

# With an empty package database everything is missing, so the plan is the whole closure.
: >"$work/status"
# A shell and the usual small commands come with busybox.
closure=$(apt-get --simulate --no-install-recommends -o Dir::State::status="$work/status" \
    -o Debug::NoLocking=1 install busybox-static "$@" | sed -n 's/^Inst \([^ :]*\).*/\1/p' | sort -u | grep -vE "$left_out")
(cd "$work/debs" && apt-get -q download $closure >"$work/apt.log" 2>&1) || {
    cat "$work/apt.log" >&2
    echo "debian-image.sh: the packages could not be downloaded; run 'apt-get update' as root and try again" >&2
    exit 1
}

# Debian's /bin, /lib and /sbin are links into /usr.
mkdir -p "$work/root/usr"/{bin,lib,lib64,sbin}
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$work/root/$name"; done
for deb in "$work"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -C "$work/root" -x --keep-directory-symlink --no-same-owner \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
        --exclude='./lib/systemd/*' --exclude='./usr/share/lintian/*'
done

for name in sh ls cat ps sleep wget nc id mkdir rm grep env hostname ip; do
    [ -e "$work/root/bin/$name" ] || ln -s busybox "$work/root/bin/$name"
done
mkdir -p "$work/root"/{etc,tmp,run,var/log,var/lib,proc,sys,dev}
chmod 1777 "$work/root/tmp"
cat >"$work/root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
postgres:x:70:70:postgres:/var/lib/postgresql:/bin/sh
mysql:x:71:71:mysql:/var/lib/mysql:/bin/sh
redis:x:999:999:redis:/var/lib/redis:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
PASSWD
printf 'root:x:0:\nadm:x:4:\nwww-data:x:33:\npostgres:x:70:\nmysql:x:71:\nredis:x:999:\nnogroup:x:65534:\n' >"$work/root/etc/group"
if [ -n "$files" ]; then cp -r "$files/." "$work/root/"; fi

# The layer, the configuration, the manifest and the index, each under the digest of its bytes.
blob() { # FILE -> digest
    local digest
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    mv "$1" "$work/oci/blobs/sha256/$digest"
    echo "$digest"
}
size() { stat -c %s "$work/oci/blobs/sha256/$1"; }

tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer.tar" .
layer=$(blob "$work/layer.tar")
architecture=$(dpkg --print-architecture)
printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$architecture" "$config" "$layer" >"$work/config.json"
configuration=$(blob "$work/config.json")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
    "$configuration" "$(size "$configuration")" "$layer" "$(size "$layer")" >"$work/manifest.json"
manifest=$(blob "$work/manifest.json")
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"%s","io.containerd.image.name":"%s"}}]}' \
    "$manifest" "$(size "$manifest")" "$architecture" "$reference" "$reference" >"$work/oci/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"

mkdir -p "$(dirname "$out")"
tar -C "$work/oci" -cf "$out.part" oci-layout index.json blobs
mv "$out.part" "$out"
echo "$reference: $(echo "$closure" | wc -l) packages, $(du -h "$out" | cut -f1)"
