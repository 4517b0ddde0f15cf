"""Determines whose prices apply: maps producers' names for a provider to the names in the price book.

When a producer does not name a provider (or only itself), the model's name decides, because a family of models has one
maker.
"""

from __future__ import annotations

import re
from typing import Final

UNKNOWN: Final = "unknown"

ALIASES: Final = {
    "openai": "openai",
    "azure": "azure",
    "azure_openai": "azure",
    "azure-openai": "azure",
    "azure_ai": "azure",
    "azurefoundry": "azure",
    "az.ai.openai": "azure",
    "az.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "anthropic": "anthropic",
    "aws": "aws",
    "aws.bedrock": "aws",
    "awsbedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "amazon-bedrock": "aws",
    "amazon_bedrock": "aws",
    "google": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "vertex": "google",
    "vertexai": "google",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
    "gemini": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "google_anthropic_vertex": "google",
    "google-vertex-anthropic": "google",
    "mistral": "mistral",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "groq": "groq",
    "xai": "x-ai",
    "x_ai": "x-ai",
    "x-ai": "x-ai",
    "deepseek": "deepseek",
    "openrouter": "openrouter",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "perplexity": "perplexity",
    "cerebras": "cerebras",
    "together": "together",
    "together_ai": "together",
    "togetherai": "together",
    "fireworks": "fireworks",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshotai",
    "moonshotai": "moonshotai",
    "novita": "novita",
    "voyage": "voyageai",
    "voyageai": "voyageai",
    "databricks": "databricks",
    "cloudflare": "cloudflare",
    "minimax": "minimax",
    "zai": "zai",
    "zhipuai": "zhipuai",
    "meta": "meta",
    "meta_llama": "meta",
    "baseten": "baseten",
    "ovhcloud": "ovhcloud",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "lmstudio": "lmstudio",
    "lm_studio": "lmstudio",
    "vllm": "vllm",
    "hosted_vllm": "vllm",
}
"""Producers' names in lower case, and the book's name. Providers that run models on the user's own machine have no
prices."""

_FAMILIES: Final = (
    (re.compile(r"^(?:[a-z]{2,6}\.)?(?:anthropic|amazon|meta|cohere|mistral|ai21|deepseek)\.[a-z]"), "aws"),
    (
        re.compile(r"^(?:gpt-|o[1-9](?:-|$)|chatgpt-|codex-|computer-use-|text-embedding-(?:3|ada)|davinci|ft:gpt)"),
        "openai",
    ),
    (re.compile(r"^claude"), "anthropic"),
    (re.compile(r"^(?:gemini|gemma|text-embedding-0|gemini-embedding|palm)"), "google"),
    (re.compile(r"^(?:mistral|mixtral|codestral|ministral|magistral|devstral|pixtral)"), "mistral"),
    (re.compile(r"^grok"), "x-ai"),
    (re.compile(r"^deepseek"), "deepseek"),
    (re.compile(r"^(?:command|embed-|rerank-)"), "cohere"),
    (re.compile(r"^(?:kimi|moonshot)"), "moonshotai"),
    (re.compile(r"^sonar"), "perplexity"),
    (re.compile(r"^voyage-"), "voyageai"),
    (re.compile(r"^glm-"), "zai"),
    (re.compile(r"^minimax"), "minimax"),
)
_BEDROCK_MAKERS: Final = ((re.compile(r"^nova-"), "amazon."), (re.compile(r"^llama\d"), "meta."))
"""Makers that Bedrock's ids begin with, and that OpenLLMetry cuts off. The book finds Claude without its maker, too."""
_SUFFIX: Final = re.compile(
    r"[./](?:chat|responses|completion|completions|messages|embedding|embeddings|generative-ai)$"
)


def provider_named(name: str) -> str | None:
    """Return the book's name for a producer's name of a provider, None when it is unknown.

    The Vercel AI SDK sends provider and interface: `openai.chat`, `anthropic.messages`.
    """
    plain = name.strip().lower()
    return ALIASES.get(plain) or ALIASES.get(_SUFFIX.sub("", plain)) or ALIASES.get(plain.replace("-", "_"))


def provider_of(named: str | None, model: str) -> tuple[str, str]:
    """Return provider and model: `openai/gpt-5` is OpenAI's gpt-5, even when a gateway served it.

    Args:
        named: the producer's name of the provider, None when it does not send one.
        model: as the producer wrote it.

    """
    provider = provider_named(named) if named else None
    if provider == "openrouter":
        return provider, model.removeprefix("openrouter/")  # its models are named maker/model
    prefix, slash, rest = model.partition("/")
    if slash and rest:
        maker = provider_named(prefix)
        if maker == "openrouter":
            return maker, rest
        if maker is not None and (provider is None or provider == maker or named == "litellm"):
            return maker, rest
        if maker is not None and "/" not in rest:
            return provider or maker, rest
        if prefix == "models":
            model = rest  # Google's own way of writing them
    if provider == "aws":
        maker = next((maker for family, maker in _BEDROCK_MAKERS if family.match(model)), "")
        return provider, maker + model
    if provider is not None:
        return provider, model
    lower = model.lower()
    return next((maker for family, maker in _FAMILIES if family.search(lower)), UNKNOWN), model
