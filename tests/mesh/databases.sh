#!/usr/bin/env bash
# Makes the image of the databases that the tests run in the mesh, out of Debian packages, where it is not there yet.
#
#   databases.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$1
[ -e "$folder/databases.tar" ] || examples/bookstore/images/debian-image.sh "$folder/databases.tar" tests/databases:12 \
    '{"Env":["PATH=/usr/lib/postgresql/15/bin:/usr/bin:/usr/sbin"]}' \
    postgresql-15 mariadb-server-core mariadb-client-core >&2
