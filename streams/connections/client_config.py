"""The configuration of each client: the block to paste, with the connection's own URLs."""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystream.schemas.ingest import CONNECTION_HEADER, INGEST_PATH
from tallystream.streams.connections import span_client_config as spans

DEFAULT_HTTP = "http://127.0.0.1:4318"


@dataclass(frozen=True)
class Endpoints:
    """Where one connection sends. `base_url` serves clients that append `/v1/logs` and the like themselves."""

    http: str
    grpc: str | None
    provider: str
    ingest_id: str = field(repr=False)
    bearer: str | None = field(default=None, repr=False)

    @property
    def base_url(self) -> str:
        """The documented shape of an ingest URL."""
        return f"{self.http.rstrip('/')}{INGEST_PATH}{self.provider}/{self.ingest_id}"

    def url(self, signal: str) -> str:
        """Return the URL of logs, metrics or traces."""
        return f"{self.base_url}/v1/{signal}"

    @property
    def authorization(self) -> dict[str, str]:
        """The header that a connection with a bearer secret needs in addition to its URL."""
        return {"authorization": f"Bearer {self.bearer}"} if self.bearer else {}

    @property
    def headers(self) -> dict[str, str]:
        """The headers to send when the URL does not carry the ingest id."""
        return {CONNECTION_HEADER: self.ingest_id} | self.authorization

    @property
    def config(self) -> str:
        """The client's own configuration, ready to paste."""
        own = {"codex": _codex, "claude": _claude, "gemini": _gemini}.get(self.provider)
        if own is not None:
            return own(self)
        where = self.url("traces") if self.provider == "litellm" else self.base_url
        return _SPANS[self.provider](where, self.authorization)

    @property
    def paste_into(self) -> str:
        """Where the configuration must be pasted."""
        return {
            "codex": "~/.codex/config.toml",
            "claude": "the shell that starts claude (or `env` in ~/.claude/settings.json)",
            "gemini": "the shell that starts gemini",
            "copilot": "the shell that starts copilot",
            "vscode": "VS Code's settings.json",
            "qwen": "~/.qwen/settings.json",
            "opencode": "the shell that starts opencode",
            "cline": "the shell that starts cline, or VS Code",
            "litellm": "the shell that starts the LiteLLM proxy",
            "collector": "the Collector's configuration",
            "genai": "the shell that starts the program",
        }[self.provider]


def _codex(at: Endpoints) -> str:
    """Codex uses each endpoint verbatim, and sends metrics to its vendor unless configured otherwise."""
    headers = ", ".join(f'{name} = "{value}"' for name, value in at.authorization.items())
    braces = f"{{ {headers} }}" if headers else "{}"

    def exporter(signal: str) -> str:
        return f'{{ otlp-http = {{ endpoint = "{at.url(signal)}", protocol = "binary", headers = {braces} }} }}'

    return (
        "[otel]\n"
        'environment = "prod"\n'
        f"exporter = {exporter('logs')}\n"
        f"trace_exporter = {exporter('traces')}\n"
        f"metrics_exporter = {exporter('metrics')}\n"
    )


def _claude(at: Endpoints) -> str:
    lines = [
        "export CLAUDE_CODE_ENABLE_TELEMETRY=1",
        "export OTEL_LOGS_EXPORTER=otlp",
        "export OTEL_METRICS_EXPORTER=otlp",
        "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        f"export OTEL_EXPORTER_OTLP_ENDPOINT={at.base_url}",
    ]
    return "\n".join([*lines, *spans.headers_variable(at.authorization)]) + "\n"


def _gemini(at: Endpoints) -> str:
    lines = [
        "export GEMINI_TELEMETRY_ENABLED=true",
        "export GEMINI_TELEMETRY_TARGET=local",
        "export GEMINI_TELEMETRY_LOG_PROMPTS=false",
        "export GEMINI_TELEMETRY_OTLP_PROTOCOL=http",
        f"export GEMINI_TELEMETRY_OTLP_ENDPOINT={at.base_url}",
    ]
    return "\n".join([*lines, *spans.headers_variable(at.authorization)]) + "\n"


_SPANS = {
    "copilot": spans.copilot,
    "vscode": spans.vscode,
    "qwen": spans.qwen,
    "opencode": spans.opencode,
    "cline": spans.cline,
    "litellm": spans.litellm,
    "collector": spans.collector,
    "genai": spans.genai,
}
"""Clients that are configured by the base URL alone, and programs that forward spans."""
