#!/usr/bin/env bash
# Builds Kubernetes' API server and kubectl from their Go modules into a folder that is kept: about 15 minutes on two cores,
# once. `make helm-install-test` runs it if kube-apiserver and kubectl are neither on PATH nor in that folder.
#
#   deploy/helm/cluster/build.sh ~/.cache/tallystream-kubernetes
set -euo pipefail

version=1.36.3
folder=${1:?the folder for the programs}
if [ -x "$folder/kube-apiserver" ] && [ -x "$folder/kubectl" ]; then exit 0; fi
command -v go > /dev/null || { echo "Go is needed to build Kubernetes' API server" >&2; exit 1; }

mkdir -p "$folder"
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
cd "$source"
# The module's `replace` directives point into its own source tree and apply only there, so each is repeated with a version.
module=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -nE 's/^\t"GoMod": "(.*)",?$/\1/p')
{
    echo "module tallystream.invalid/kubernetes"
    sed -nE 's/^go .*/&/p' "$module"
    echo "require k8s.io/kubernetes v$version"
    sed -nE "s|^[[:space:]]*(k8s\.io/[a-z-]+) => \./staging/.*|replace \1 => \1 v0.${version#1.}|p" "$module"
} > go.mod
for program in kube-apiserver kubectl; do
    go build -mod=mod -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version" \
        -o "$folder/$program" "k8s.io/kubernetes/cmd/$program"
done
"$folder/kube-apiserver" --version
