"""Configuration of clients that are counted by their spans, and of programs that forward spans, each by its own
documentation.

Sources: Copilot's and VS Code's monitoring pages, Qwen Code's telemetry page, opencode's configuration schema, Cline's
page on environment variables, the
OpenTelemetry pages of LiteLLM, the Collector's otlphttp exporter, and OpenTelemetry's environment variables.
"""

from __future__ import annotations

import json
from urllib.parse import quote


def headers_variable(authorization: dict[str, str], name: str = "OTEL_EXPORTER_OTLP_HEADERS") -> list[str]:
    """Return the line that sets headers; values are percent-encoded (the OpenTelemetry specification's rule)."""
    pairs = ",".join(f"{key}={quote(value)}" for key, value in authorization.items())
    return [f'export {name}="{pairs}"'] if pairs else []


def copilot(base_url: str, authorization: dict[str, str]) -> str:
    """Return what Copilot CLI needs: HTTP only, and without content unless it is requested."""
    lines = ["export COPILOT_OTEL_ENABLED=true", f"export OTEL_EXPORTER_OTLP_ENDPOINT={base_url}"]
    return _lines(*lines, *headers_variable(authorization))


def vscode(base_url: str, authorization: dict[str, str]) -> str:
    """Return VS Code's settings, those of the Agent Host included, which runs the sessions of newer versions.

    Headers are set in the environment that VS Code is started from: as a setting, which older versions do not have, a
    secret would be synchronised to the user's other machines.
    """
    settings = {
        "github.copilot.chat.otel.enabled": True,
        "github.copilot.chat.otel.exporterType": "otlp-http",
        "github.copilot.chat.otel.otlpEndpoint": base_url,
        "github.copilot.chat.otel.captureContent": False,
        "chat.agentHost.otel.enabled": True,
        "chat.agentHost.otel.exporterType": "otlp-http",
        "chat.agentHost.otel.otlpEndpoint": base_url,
        "chat.agentHost.otel.captureContent": False,
    }
    note = [f"// in the shell that starts code: {line}" for line in headers_variable(authorization)]
    return _lines(*note, json.dumps(settings, indent=2))


def qwen(base_url: str, authorization: dict[str, str]) -> str:
    """Return Qwen Code's settings: its logs are counted, and they include prompts unless that is turned off."""
    telemetry = {
        "enabled": True,
        "target": "local",
        "otlpEndpoint": base_url,
        "otlpProtocol": "http",
        "logPrompts": False,
    }
    note = [f"// in the shell that starts qwen: {line}" for line in headers_variable(authorization)]
    return _lines(*note, json.dumps({"telemetry": telemetry}, indent=2))


def opencode(base_url: str, authorization: dict[str, str]) -> str:
    """Return opencode's environment. A run that ends at once may lose its last spans; `opencode serve` does not."""
    lines = [
        f"export OTEL_EXPORTER_OTLP_ENDPOINT={base_url}",
        'export OPENCODE_CONFIG_CONTENT=\'{"experimental":{"openTelemetry":true}}\'',
    ]
    return _lines(*lines, *headers_variable(authorization))


def cline(base_url: str, authorization: dict[str, str]) -> str:
    """Return Cline's environment, in which only `true` turns it on in every version; organisations can set the same in
    its dashboard instead.
    """
    lines = [
        "export CLINE_OTEL_TELEMETRY_ENABLED=true",
        "export CLINE_OTEL_LOGS_EXPORTER=otlp",
        "export CLINE_OTEL_METRICS_EXPORTER=otlp",
        "export CLINE_OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        f"export CLINE_OTEL_EXPORTER_OTLP_ENDPOINT={base_url}",
    ]
    return _lines(*lines, *headers_variable(authorization, "CLINE_OTEL_EXPORTER_OTLP_HEADERS"))


def litellm(traces_url: str, authorization: dict[str, str]) -> str:
    """Return the environment of a LiteLLM proxy whose configuration has `callbacks: ["otel"]`; prompts are not sent."""
    lines = [
        '# in config.yaml: litellm_settings: {callbacks: ["otel"]}',
        "export LITELLM_OTEL_V2=true",
        "export OTEL_EXPORTER=otlp_http",
        f"export OTEL_ENDPOINT={traces_url}",
    ]
    return _lines(*lines, *headers_variable(authorization, "OTEL_HEADERS"))


def collector(base_url: str, authorization: dict[str, str]) -> str:
    """Return an exporter of the OpenTelemetry Collector, to be named in its pipelines."""
    lines = ["exporters:", "  otlphttp/tallystream:", f"    endpoint: {base_url}"]
    if authorization:
        lines += ["    headers:", *(f"      {name}: {json.dumps(value)}" for name, value in authorization.items())]
    lines += ["# and in service.pipelines, for traces, logs and metrics: exporters: [otlphttp/tallystream]"]
    return _lines(*lines)


def genai(base_url: str, authorization: dict[str, str]) -> str:
    """Return the environment of any program with an OpenTelemetry SDK; its framework must be instrumented."""
    lines = [
        "export OTEL_TRACES_EXPORTER=otlp",
        "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        f"export OTEL_EXPORTER_OTLP_ENDPOINT={base_url}",
        "export OTEL_SERVICE_NAME=my-agent",
    ]
    return _lines(*lines, *headers_variable(authorization))


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
