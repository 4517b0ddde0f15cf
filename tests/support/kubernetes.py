"""A real API server with its etcd on loopback for the duration of a test. It stores objects but runs no pods."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.support.prometheus import running
from tests.support.waiting import PATIENCE, eventually

from tallystream.streams.process.tcp_ports import pick

PLACES = os.pathsep.join([os.environ["PATH"], str(Path.home() / "go" / "bin"), os.environ.get("KUBERNETES_BIN", "")])
TOKEN = "token-of-the-test"
# Kinds of the Prometheus operator, so that such objects can be stored; their content is not validated.
OPERATOR = (("servicemonitors", "ServiceMonitor"), ("prometheusrules", "PrometheusRule"))


def program(name: str) -> str | None:
    """Return where a program is: in KUBERNETES_BIN, Go's folder or on PATH; None if nowhere."""
    folder = os.environ.get("KUBERNETES_BIN")
    return (shutil.which(name, path=folder) if folder else None) or shutil.which(name, path=PLACES)


class Cluster:
    """Runs kubectl and helm against an API server."""

    def __init__(self, kubeconfig: Path) -> None:
        self._environment = os.environ | {"KUBECONFIG": str(kubeconfig), "HELM_CACHE_HOME": str(kubeconfig.parent)}

    def run(self, name: str, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl or helm and return the result."""
        found = program(name)
        assert found is not None, name
        return subprocess.run(
            [found, *args],
            input=stdin,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def must(self, name: str, *args: str, stdin: str | None = None) -> str:
        """Run kubectl or helm, which has to succeed, and return its stdout."""
        done = self.run(name, *args, stdin=stdin)
        assert done.returncode == 0, f"{args} exited {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def objects(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the objects of a kind by name."""
        items = json.loads(self.must("kubectl", "get", kind, "--output", "json"))["items"]
        return {item["metadata"]["name"]: item for item in items}


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run etcd and kube-apiserver; provide a ready cluster that has the Prometheus operator's kinds."""
    folder.mkdir()
    etcd, apiserver = program("etcd"), program("kube-apiserver")
    assert etcd is not None
    assert apiserver is not None
    client, peer, port = pick(), pick(), pick()
    key = folder / "service-account.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    store = [
        f"--data-dir={folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}",
    ]  # fmt: skip
    server = [
        f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
        f"--secure-port={port}", f"--cert-dir={folder}/certificates", f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=RBAC", f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.invalid", "--disable-admission-plugins=ServiceAccount",
    ]  # fmt: skip
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(port)))
    found = Cluster(kubeconfig)
    with (
        running(etcd, folder / "etcd.log", *store),
        running(apiserver, folder / "apiserver.log", *server),
    ):
        ready = f"the API server is ready; see {folder}/apiserver.log"
        eventually(lambda: found.run("kubectl", "get", "--raw", "/readyz").returncode == 0, ready)
        eventually(lambda: found.run("kubectl", "get", "namespace", "default").returncode == 0, "a namespace")
        for plural, kind in OPERATOR:
            found.must("kubectl", "apply", "--filename", "-", stdin=json.dumps(_definition(plural, kind)))
        for plural, _ in OPERATOR:
            eventually(lambda name=plural: found.run("kubectl", "get", name).returncode == 0, plural)  # type: ignore[misc]
        yield found


def _kubeconfig(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "test", "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
        "current-context": "test",
    }


def _definition(plural: str, kind: str) -> dict[str, Any]:
    group = "monitoring.coreos.com"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
