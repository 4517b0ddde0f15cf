"""The Helm chart: its renderings must be valid for Kubernetes, use existing settings, and keep secrets in Secrets.

Needs `helm`; with helm-unittest the chart's own tests run, too. Tests whose tool is missing are skipped;
docs/operations/kubernetes.md says where to get the tools.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tallystream.settings.ocean_names import NAMES
from tallystream.settings.settings import Settings

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "tallystream"
PLACES = os.pathsep.join([os.environ["PATH"], str(Path.home() / "go" / "bin")])
HELM = shutil.which("helm", path=PLACES)
UNITTEST = shutil.which("helm-unittest", path=PLACES) or shutil.which("untt", path=PLACES)
KUBERNETES = "1.31.0"
VERSIONS = ("1.31", "1.37")
BASE = {"kafka.bootstrap": "kafka-0:9092,kafka-1:9092", "users.keepNames": "true"}
PAGE = {
    "port.clientId": "the-client-id",
    "port.clientSecret": "the-client-secret",
    "port.baseUrl": "https://api.us.getport.io",
    "initializePortResources": "true",
    "integration.identifier": "codex-integration",
    "integration.type": "custom",
    "integration.eventListener.type": "POLLING",
    "integration.config.baseUrl": "https://api.openai.com/v1",
    "integration.config.authType": "bearer_token",
    "integration.config.apiToken": "sk-the-api-token",
    "scheduledResyncInterval": "120",
    "sendRawDataExamples": "true",
}
RENDERINGS: dict[str, dict[str, str]] = {
    "least": BASE,
    "as Port's page has it": BASE | PAGE,
    "secrets by reference": BASE
    | {
        "users.keepNames": "false",
        "users.existingSecret": "people",
        "openai.existingSecret": "openai",
        "openai.adminTokenKey": "admin",
        "port.existingSecret": "port",
        "kafka.protocol": "SASL_SSL",
        "kafka.sasl.existingSecret": "kafka-user",
        "kafka.tls.existingSecret": "kafka-tls",
        "kafka.tls.clientCertificate": "true",
        "gateway.tls.existingSecret": "gateway-tls",
        "gateway.ingress.enabled": "true",
        "gateway.ingress.host": "otel.example.com",
        "gateway.ingress.tlsSecret": "ingress",
        "worker.pricesConfigMap": "prices",
        "sink.mappingConfigMap": "mapping",
        "sink.mappingAddsToDefault": "true",
        "sink.extraVolumes[0].name": "more",
        "sink.extraVolumes[0].configMap.name": "more",
        "sink.extraVolumeMounts[0].name": "more",
        "sink.extraVolumeMounts[0].mountPath": "/more",
        "port.caSecret": "port-ca",
        "openai.caSecret": "openai-ca",
        "poller.resourcesConfigMap": "resources",
        "anthropic.existingSecret": "anthropic",
    },
    "a platform that assigns ids, brokers by IPv6": BASE
    | {
        "kafka.bootstrap": "[fd00::1]:9092,[fd00::2]:9093",
        "podSecurityContext.runAsUser": "null",
        "podSecurityContext.runAsGroup": "null",
        "podSecurityContext.fsGroup": "1000680000",
        "image.digest": "sha256:" + "0" * 64,
        "ledger.database.existingSecret": "postgresql",
        "console.auth": "proxy",
        "gateway.extraEnv[0].name": "TALLYSTREAM_MAX_BODY_BYTES",
        "gateway.extraEnv[0].value": "67108864",
        "port.existingSecret": "port",
    },
    "one of each, watched": BASE
    | {
        "gateway.replicas": "1",
        "worker.replicas": "1",
        "networkPolicy.enabled": "false",
        "serviceMonitor.enabled": "true",
        "prometheusRule.enabled": "true",
        "dashboards.enabled": "true",
    },
}
needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not here")
each_rendering = pytest.mark.parametrize("values", RENDERINGS.values(), ids=RENDERINGS)


def helm(*args: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *args], capture_output=True, text=True, check=False, timeout=60)


def render(values: dict[str, str]) -> list[dict[str, Any]]:
    settings = [
        part for name, value in values.items() for part in ("--set", f"{name}={value.replace(',', chr(92) + ',')}")
    ]
    done = helm("template", "release", str(CHART), "--kube-version", KUBERNETES, *settings)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def containers(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pods = [document for document in documents if document["kind"] in ("StatefulSet", "Deployment")]
    return [one for pod in pods for one in pod["spec"]["template"]["spec"]["containers"]]


def value_of(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def test_default_values_match_the_values_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load((CHART / "values.yaml").read_text()))


def test_every_name_on_ports_page_is_a_value_of_the_chart() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in NAMES:
        value_of(values, name)
    assert set(PAGE) == set(NAMES)


@needs_helm
def test_chart_passes_helm_lint() -> None:
    settings = [
        part for name, value in BASE.items() for part in ("--set", f"{name}={value.replace(',', chr(92) + ',')}")
    ]
    done = helm("lint", str(CHART), "--strict", "--kube-version", KUBERNETES, *settings)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
def test_replication_accepted_loss_and_standby_reach_their_components() -> None:
    plain = containers(render(BASE))
    assert not [one for one in plain for env in one["env"] if env["name"] == "TALLYSTREAM_REPLICATION"]
    flags = {"--accept-loss", "--standby"}
    assert not [one for one in plain if flags & {*one.get("args", [])}]
    told = containers(render(BASE | {"replication": "2", "worker.acceptLoss": "true", "worker.standby": "true"}))
    ours = [one for one in told if {"name": "TALLYSTREAM_PREFIX", "value": "tallystream"} in one["env"]]
    assert len(ours) > 2
    assert all({"name": "TALLYSTREAM_REPLICATION", "value": "2"} in one["env"] for one in ours)
    assert [one["name"] for one in told if flags <= {*one.get("args", [])}] == ["worker"]


@needs_helm
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replication", "0"),
        ("kafka.protocol", "TLS"),
        ("integration.type", "hosted"),
        ("integration.config.authType", "basic"),
        ("integration.eventListener.type", "KAFKA"),
        ("worker.replicas", "0"),
        ("scheduledResyncInterval", "0"),
        ("gateway.persistence.size", "big"),
        ("nonsense", "1"),
    ],
)
def test_chart_refuses_invalid_values(name: str, value: str) -> None:
    done = helm(
        "template", "release", str(CHART), "--kube-version", KUBERNETES, "--set", "kafka.bootstrap=k:9092",
        "--set", "users.keepNames=true", "--set", f"{name}={value}",
    )  # fmt: skip
    assert done.returncode != 0
    assert name.rpartition(".")[2] in done.stderr


@pytest.mark.skipif(UNITTEST is None, reason="helm-unittest is not here")
def test_helm_unittests_of_the_chart_pass() -> None:
    assert UNITTEST is not None
    done = subprocess.run([UNITTEST, str(CHART)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
@each_rendering
@pytest.mark.parametrize("version", VERSIONS)
def test_rendered_chart_is_valid_for_kubernetes(values: dict[str, str], version: str) -> None:
    for document in render(values):
        if not document["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(document, version, strict=True)


@needs_helm
def test_kubernetes_schemas_refuse_unknown_fields() -> None:
    (gateway,) = [
        one for one in render(BASE) if one["kind"] == "StatefulSet" and one["metadata"]["name"].endswith("gateway")
    ]
    gateway["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(gateway, VERSIONS[-1], strict=True)


@needs_helm
@each_rendering
def test_chart_variables_and_arguments_exist(
    values: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("TALLYSTREAM_")]:
        monkeypatch.delenv(name)
    for container in containers(render(values)):
        for variable in container["env"]:
            setting = variable["name"].removeprefix("TALLYSTREAM_").lower()
            if variable["name"] == "POD_NAME":
                continue
            assert setting in Settings.model_fields, variable["name"]
            with monkeypatch.context() as patched:
                patched.setenv(variable["name"], variable.get("value", "from-a-secret"))
                Settings()
        argv = [sys.executable, "-m", "tallystream", *container["args"], "--help"]
        assert subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0, container["args"]


@needs_helm
def test_secret_values_appear_only_in_secrets() -> None:
    secrets = ("the-client-id", "the-client-secret", "sk-the-api-token", "the-users-key")
    documents = render(BASE | PAGE | {"users.keepNames": "false", "users.key": "the-users-key"})
    for document in documents:
        text = json.dumps(document)
        assert not any(secret in text for secret in secrets), document["kind"]
    (secret,) = [document for document in documents if document["kind"] == "Secret"]
    assert len(secret["data"]) == len(secrets)


@needs_helm
def test_own_prices_reach_all_that_price_or_compare_prices() -> None:
    """A poller with another book than the workers would call a contract's prices an error of the book."""
    documents = render(BASE | {"worker.pricesConfigMap": "ours", "anthropic.adminToken": "sk-ant"})
    priced = {
        one["name"]: {variable["name"]: variable.get("value") for variable in one["env"]}
        for one in containers(documents)
        if any(mount["name"] == "prices" for mount in one["volumeMounts"])
    }
    assert priced.keys() == {"worker", "poller", "ledger", "console"}
    assert {env["TALLYSTREAM_PRICES"] for env in priced.values()} == {"/etc/tallystream/prices/prices.toml"}
    for pod in documents:
        if pod["kind"] in ("StatefulSet", "Deployment"):
            spec = pod["spec"]["template"]["spec"]
            mounted = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
            volumes = {one["name"]: one for one in spec["volumes"]}
            assert ("prices" in mounted) == ("prices" in volumes)
            assert "prices" not in volumes or volumes["prices"]["configMap"] == {"name": "ours"}


@needs_helm
@pytest.mark.parametrize(
    "values",
    [{"anthropic.adminToken": "sk-ant"}, {"anthropic.existingSecret": "a"}, {"poller.resourcesConfigMap": "more"}],
)
def test_poller_runs_without_openai(values: dict[str, str]) -> None:
    (poller,) = [one for one in containers(render(BASE | values)) if one["name"] == "poller"]
    keys = {variable["name"]: variable for variable in poller["env"] if "TOKEN" in variable["name"]}
    assert keys.keys() == (
        {"TALLYSTREAM_ANTHROPIC_ADMIN_TOKEN"} if "poller.resourcesConfigMap" not in values else set()
    )
    for one in keys.values():
        assert one["valueFrom"]["secretKeyRef"]["key"] in ("admin-token", "anthropic-admin-token")
    assert not [one for one in containers(render(BASE)) if one["name"] == "poller"]


@needs_helm
def test_existing_secrets_are_referenced_and_not_created() -> None:
    assert not [one for one in render(RENDERINGS["secrets by reference"]) if one["kind"] == "Secret"]


@needs_helm
@each_rendering
def test_chart_containers_run_without_privileges(values: dict[str, str]) -> None:
    for document in render(values):
        if document["kind"] not in ("StatefulSet", "Deployment"):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)


@needs_helm
def test_chart_contains_the_repositorys_alert_rules() -> None:
    (rule,) = [one for one in render(RENDERINGS["one of each, watched"]) if one["kind"] == "PrometheusRule"]
    files = sorted((CHART.parents[1] / "prometheus" / "rules").glob("*.yml"))
    assert files
    assert rule["spec"]["groups"] == [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]


@needs_helm
def test_user_ids_and_image_digests_can_be_set() -> None:
    for document in render(RENDERINGS["a platform that assigns ids, brokers by IPv6"]):
        if document["kind"] not in ("StatefulSet", "Deployment"):
            continue
        pod = document["spec"]["template"]["spec"]
        assert "runAsUser" not in pod["securityContext"]
        assert pod["securityContext"]["fsGroup"] == 1000680000
        for container in pod["containers"]:
            assert container["image"] == "tallystream@sha256:" + "0" * 64
        for volume in pod["volumes"]:
            assert volume.get("emptyDir") != {}, "an emptyDir has a limit"


@needs_helm
def test_numeric_extra_variables_become_strings(tmp_path: Path) -> None:
    given = [67108864, 1.5, True, "0x10"]
    values = {
        "kafka": {"bootstrap": "kafka:9092"},
        "users": {"keepNames": True},
        "gateway": {"extraEnv": [{"name": f"V{at}", "value": value} for at, value in enumerate(given)]},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm("template", "release", str(CHART), "--kube-version", KUBERNETES, "-f", str(tmp_path / "values.yaml"))
    assert done.returncode == 0, done.stderr
    (gateway,) = [
        one
        for one in containers([document for document in yaml.safe_load_all(done.stdout) if document])
        if one["name"] == "gateway"
    ]
    found = {one["name"]: one.get("value") for one in gateway["env"]}
    assert [found[f"V{at}"] for at in range(len(given))] == ["67108864", "1.5", "true", "0x10"]


@needs_helm
@each_rendering
def test_network_policies_allow_only_required_egress(values: dict[str, str]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in render(values) if one["kind"] == "NetworkPolicy"}
    if values.get("networkPolicy.enabled") == "false":
        assert not policies
        return
    for name, spec in policies.items():
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
        wanted = {53, *(int(one.rpartition(":")[2]) for one in values["kafka.bootstrap"].split(","))}
        if name.endswith(("poller", "sink")):
            wanted.add(443)
        if name.endswith("ledger") and "ledger.database.existingSecret" in values:
            wanted.add(5432)
        assert ports == wanted, name


@needs_helm
def test_gateway_serves_grpc_and_console_runs_in_the_ledgers_pod() -> None:
    documents = render(BASE)
    services = {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] == "Service"}
    assert {port["port"] for port in services["release-tallystream-gateway"]["ports"]} == {4317, 4318}
    assert {port["port"] for port in services["release-tallystream-console"]["ports"]} == {4319}
    assert {"ledger", "console"} <= {one["name"] for one in containers(documents)}
    without = render(BASE | {"gateway.grpcPort": "0", "ledger.enabled": "false", "console.enabled": "false"})
    assert {"ledger", "console"}.isdisjoint(one["name"] for one in containers(without))
    (gateway,) = [
        one for one in without if one["metadata"]["name"] == "release-tallystream-gateway" and one["kind"] == "Service"
    ]
    assert [port["port"] for port in gateway["spec"]["ports"]] == [4318]
