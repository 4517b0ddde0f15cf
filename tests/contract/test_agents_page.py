"""The page of supported agents: its table names every client there is, with the rule that the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.contract.test_captures_genai import ESTIMATED, FOLDERS, NEVER_SENT, NEVER_TOLD

from tallystream.schemas.clients.registry import NORMALISERS
from tallystream.streams.connections.registry import PROVIDERS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "agents.md"
OF_PROVIDERS = {
    "codex": "Codex", "claude": "Claude Code", "gemini": "Gemini CLI", "copilot": "Copilot CLI",
    "vscode": "VS Code Copilot Chat, Goose", "qwen": "Qwen Code", "opencode": "opencode run", "cline": "Cline",
    "litellm": "LiteLLM",
}  # fmt: skip
"""Connections of `collector` and `genai` receive from any client."""
OF_RECORDINGS = {
    "ai-sdk": "Vercel AI SDK 7", "ai-sdk-5": "Vercel AI SDK 5", "claude-agent-sdk": "Claude Agent SDK",
    "copilot-cli": "Copilot CLI", "crewai": "CrewAI", "google-adk": "Google ADK",
    "langgraph": "LangChain, LangGraph, OpenInference", "litellm": "LiteLLM", "litellm-v2": "LiteLLM",
    "ms-agent-framework": "Microsoft Agent Framework",
    "openai-agents": "OpenAI Agents SDK, OpenInference, Responses API", "opencode": "opencode run",
    "openinference": "OpenInference openai, anthropic", "openllmetry": "OpenLLMetry openai, anthropic",
    "otel-genai": "OpenTelemetry's genai-openai, -anthropic, -langchain",
    "otel-openai-v2": "OpenTelemetry's openai-v2", "pydantic-ai": "Pydantic AI 1, 2",
    "pydantic-ai-1": "Pydantic AI 1, 2",
    "qwen-code": "Qwen Code", "semantic-kernel": "Semantic Kernel, smolagents",
    "smolagents": "Semantic Kernel, smolagents", "strands": "Strands", "strands-agents": "Strands",
    "vercel-ai-sdk": "Vercel AI SDK 7",
}  # fmt: skip
"""The row of each client of the recordings."""
INEXACT = {
    "aisdk-new": "Vercel AI SDK 7", "agents-openinference-chat": "OpenAI Agents SDK, OpenInference, Chat Completions",
    "openllmetry-openai": "OpenLLMetry openai, anthropic", "otelv2-default": "OpenTelemetry's openai-v2",
    "strands-openai": "Strands", "crewai-openinference": "CrewAI", "opencode-http": "opencode run",
    "litellm-proxy": "LiteLLM", "litellm-through-sdk": "LiteLLM",
}  # fmt: skip
"""The row of each recording in which something is missing or estimated."""


class PageRow(NamedTuple):
    client: str
    rule: str
    exact: str
    why_not: str


def table() -> list[PageRow]:
    lines = PAGE.read_text().split("## Client by client")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [PageRow(*row) for row in cells[2:]]


def test_each_provider_and_each_priced_log_event_has_a_row() -> None:
    rows = {row.client: row for row in table()}
    assert set(OF_PROVIDERS) == set(PROVIDERS) - {"collector", "genai"}
    for provider, client in OF_PROVIDERS.items():
        assert client in rows, provider
    rules = " ".join(row.rule for row in rows.values())
    assert {normaliser.event for normaliser in NORMALISERS} == {
        event.split(".", 1)[-1] if event.startswith("claude_code.") else event
        for event in re.findall(r"log `([^`]+)`", rules)
    }


def test_rows_say_why_a_client_is_not_exact() -> None:
    found = table()
    rows = {row.client: row for row in found}
    assert len(rows) == len(found), "each client has one row"
    for row in found:
        assert row.rule, row.client
        assert row.exact.startswith("yes") or row.why_not, row.client
    assert set(INEXACT) == set(NEVER_TOLD) | set(NEVER_SENT) | set(ESTIMATED)
    for recording, client in INEXACT.items():
        assert rows[client].why_not, recording


@pytest.mark.skipif(not FOLDERS, reason="there are no recordings beside this checkout")
def test_each_recorded_client_has_a_row() -> None:
    rows = {row.client for row in table()}
    for folder in FOLDERS:
        client = json.loads((folder / "truth.json").read_text())["client"]
        assert OF_RECORDINGS[client] in rows, folder.name
