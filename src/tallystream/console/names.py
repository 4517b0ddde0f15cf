"""What the pages call providers and kinds of tokens."""

from __future__ import annotations

from collections.abc import Mapping

PROVIDER_NAMES = {
    "codex": "OpenAI Codex",
    "claude": "Claude Code",
    "gemini": "Gemini CLI",
    "copilot": "GitHub Copilot CLI",
    "vscode": "VS Code",
    "qwen": "Qwen Code",
    "cline": "Cline",
    "litellm": "LiteLLM",
    "collector": "OpenTelemetry Collector",
    "genai": "Another program (GenAI spans)",
}
"""Display names of providers; others are shown by their own name."""
BILLING: Mapping[str, Mapping[str, str]] = {
    "openai": {
        "name": "OpenAI billing", "page": "/openai", "token": "TALLYSTREAM_OPENAI_ADMIN_TOKEN", "key": "sk-admin-...",
        "where": "OpenAI's organization settings, under Admin keys",
    },
    "anthropic": {
        "name": "Anthropic billing", "page": "/bills", "token": "TALLYSTREAM_ANTHROPIC_ADMIN_TOKEN",
        "key": "sk-ant-admin...", "where": "Anthropic's console, under Admin keys",
    },
}  # fmt: skip
"""Providers whose own bill can be polled, with what their page says."""
KINDS = (
    ("input_uncached", "Input"),
    ("cache_read", "Cached input"),
    ("cache_write_5m", "Cache written (5 min)"),
    ("cache_write_1h", "Cache written (1 h)"),
    ("output", "Output"),
    ("reasoning", "of it reasoning"),
    ("tool", "Tool"),
)
"""Kinds of tokens and their display names."""
