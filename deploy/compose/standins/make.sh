#!/usr/bin/env bash
# Builds images under the tags in docker-compose.yml, for a machine that cannot reach an image registry: from Debian's
# packages, a Python on this machine, and the Kafka that `tallystream up` downloads. Needs root, debootstrap and a Docker
# engine. Existing images are kept.
#
#   PYTHON312=$(pyenv prefix 3.12.1) PYTHON=.venv/bin/python CACHE=~/.cache/tallystream-standins deploy/compose/standins/make.sh
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
: "${PYTHON312:?the prefix of a Python 3.12: pyenv prefix 3.12.1}"
: "${PYTHON:=python3}"   # with tallystream[embedded] installed
: "${CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/tallystream-standins}"
mkdir -p "$CACHE"

has() { docker image inspect "$1" > /dev/null 2>&1; }

python_image() {
    has python:3.12-slim && return
    local root=$CACHE/bookworm
    if [ ! -e "$root/.complete" ]; then
        rm -rf "$root"
        debootstrap --variant=minbase --include=ca-certificates,libssl3,libsqlite3-0,libffi8,libreadline8,busybox bookworm "$root"
        touch "$root/.complete"
    fi
    tar -C "$PYTHON312" --exclude=lib/python3.12/test --exclude='lib/python3.12/config-*' --exclude=__pycache__ \
        -c bin lib include | tar -C "$root/usr/local" -x
    ln -sf python3.12 "$root/usr/local/bin/python3"
    ln -sf python3.12 "$root/usr/local/bin/python"
    sed -i '1s|^#!.*python3.12$|#!/usr/local/bin/python3.12|' "$root"/usr/local/bin/pip*
    # This machine's CA certificates, because the package index may be reached through a proxy with its own CA.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    chroot "$root" ldconfig
    tar -C "$root" -c . | docker import -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - python:3.12-slim
}

kafka_image() {
    has apache/kafka:4.3.1 && return
    local context=$CACHE/kafka
    rm -rf "$context"
    mkdir -p "$context/libs"
    cp "$here"/kafka/* "$context"
    "$PYTHON" - "$context" <<'PYTHON'
import shutil, sys
from pathlib import Path
from tallystream.streams.embedded import default_cache_dir, jars

context = Path(sys.argv[1])
for jar in jars.resolve(default_cache_dir()):
    shutil.copy(jar, context / "libs")
shutil.copytree(jars.java().parent.parent, context / "java", symlinks=True)
PYTHON
    docker build --quiet --tag apache/kafka:4.3.1 "$context"
}

debian_image() {   # TAG PACKAGE PROGRAM
    has "$1" && return
    local context=$CACHE/$2
    rm -rf "$context"
    mkdir -p "$context/root"
    (cd "$context" && apt-get download --quiet "$2" && dpkg -x ./"$2"_*.deb root)
    cp "$here/prometheus/Dockerfile" "$context"
    docker build --quiet --tag "$1" --build-arg "PROGRAM=$3" "$context"
}

python_image
kafka_image
debian_image prom/prometheus:v3.5.0 prometheus prometheus
debian_image prom/alertmanager:v0.28.1 prometheus-alertmanager prometheus-alertmanager
docker image ls
