"""The chart on a real API server: whether every rendering is accepted, and whether a release can be upgraded and rolled
back.

`make helm-install-test` builds the API server once and runs the test. There is no kubelet, so pods do not run.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.contract.test_helm import BASE, CHART, PAGE, RENDERINGS
from tests.support.kubernetes import Cluster, cluster, program

MISSING = [name for name in ("helm", "kubectl", "etcd", "kube-apiserver") if program(name) is None]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.skipif("TALLYSTREAM_HELM_INSTALL_TEST" not in os.environ, reason="make helm-install-test"),
]


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert not MISSING, f"not here: {', '.join(MISSING)}"
    with cluster(tmp_path_factory.mktemp("kubernetes") / "run") as found:
        yield found


def settings(values: dict[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in ("--set", f"{name}={value.replace(',', chr(92) + ',')}")]


def check(kubernetes: Cluster, manifest: str) -> str:
    """Let the API server validate objects without storing them; return its errors."""
    done = kubernetes.run(
        "kubectl", "apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "--filename", "-",
        stdin=manifest,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("values", RENDERINGS.values(), ids=RENDERINGS)
def test_api_server_accepts_every_rendering_without_warnings(kubernetes: Cluster, values: dict[str, str]) -> None:
    manifest = kubernetes.must("helm", "template", "release", str(CHART), "--validate", *settings(values))
    assert not check(kubernetes, manifest)


def test_api_server_refuses_errors_that_schemas_miss(kubernetes: Cluster) -> None:
    manifest = kubernetes.must("helm", "template", "release", str(CHART), "--validate", *settings(BASE))
    document = next(one for one in yaml.safe_load_all(manifest) if one and one["kind"] == "StatefulSet")
    resources = document["spec"]["template"]["spec"]["containers"][0]["resources"]
    resources["requests"]["memory"] = "64Gi"
    assert re.search(
        r"requests.*must be less than or equal to memory limit", check(kubernetes, yaml.safe_dump(document))
    )


def test_release_can_be_installed_upgraded_rolled_back_and_removed(kubernetes: Cluster, tmp_path: Path) -> None:
    watched = RENDERINGS["one of each, watched"]
    wanted = BASE | PAGE | {name: value for name, value in watched.items() if name.endswith("enabled")}
    wanted |= {"networkPolicy.enabled": "true"}
    kubernetes.must("helm", "install", "tally", str(CHART), *settings(wanted))
    sets = kubernetes.objects("statefulsets")
    assert {name: one["spec"]["replicas"] for name, one in sets.items()} == {
        "tally-tallystream-gateway": 2, "tally-tallystream-worker": 2, "tally-tallystream-exporter": 1,
        "tally-tallystream-sink": 1,
    }  # fmt: skip
    assert set(kubernetes.objects("deployments")) == {"tally-tallystream-poller"}
    assert set(kubernetes.objects("poddisruptionbudgets")) == {"tally-tallystream-gateway", "tally-tallystream-worker"}
    assert len(kubernetes.objects("networkpolicies")) == 5
    assert len(kubernetes.objects("servicemonitors")) >= 1
    rules = kubernetes.objects("prometheusrules")["tally-tallystream"]["spec"]["groups"]
    assert {rule["alert"] for group in rules for rule in group["rules"] if "alert" in rule} >= {
        "TallystreamComponentDown"
    }
    for one in sets.values():
        assert one["spec"]["serviceName"] in kubernetes.objects("services"), "a pod's name is found by its service"

    # A newer chart with other settings must not change fields that cannot be changed in place.
    newer = tmp_path / "tallystream"
    shutil.copytree(CHART, newer)
    about = yaml.safe_load((newer / "Chart.yaml").read_text()) | {"version": "0.2.0", "appVersion": "0.2.0"}
    (newer / "Chart.yaml").write_text(yaml.safe_dump(about))
    changed = wanted | {"worker.replicas": "5", "gateway.service.type": "LoadBalancer", "kafka.protocol": "SSL"}
    kubernetes.must("helm", "upgrade", "tally", str(newer), *settings(changed))
    worker = kubernetes.objects("statefulsets")["tally-tallystream-worker"]["spec"]
    assert worker["replicas"] == 5
    environment = worker["template"]["spec"]["containers"][0]["env"]
    assert {"name": "TALLYSTREAM_KAFKA_PROTOCOL", "value": "SSL"} in environment

    kubernetes.must("helm", "rollback", "tally", "1")
    again = kubernetes.objects("statefulsets")
    assert {name: one["spec"]["replicas"] for name, one in again.items()} == {
        name: one["spec"]["replicas"] for name, one in sets.items()
    }
    assert [one["spec"]["template"] for one in again.values()] == [one["spec"]["template"] for one in sets.values()]

    kubernetes.must("helm", "uninstall", "tally")
    for kind in ("statefulsets", "deployments", "poddisruptionbudgets", "networkpolicies", "secrets", "configmaps"):
        assert not [name for name in kubernetes.objects(kind) if name.startswith("tally-")], kind
