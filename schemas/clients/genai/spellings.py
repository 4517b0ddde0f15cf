"""Attribute names that producers of GenAI spans use: one table per meaning, in which the first name present counts.

Sources: the GenAI semantic conventions of OpenTelemetry and their earlier versions, the attributes of OpenInference,
OpenLLMetry, the Vercel AI SDK, LiteLLM, Pydantic AI, Copilot, Qwen Code, LangSmith, MLflow and BeeAI as they send them,
and the names in the source code of OpenLIT, Mastra and earlier versions of Semantic Kernel. docs/agents.md shows which
producer uses which.
"""

from __future__ import annotations

import re
from typing import Final

INPUT: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
    "ai.usage.tokens",
    "llm.usage.prompt_tokens",
    "gen_ai.aggregated_usage.input_tokens",
    "gen_ai.response.prompt_tokens",
)
OUTPUT: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
    "llm.usage.completion_tokens",
    "gen_ai.aggregated_usage.output_tokens",
    "gen_ai.response.completion_tokens",
)
CACHE_READ: Final = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.input_tokens.cached",
    "gen_ai.usage.details.cache_read_tokens",
    "gen_ai.usage.cached_tokens",
    "gen_ai.usage.prompt_tokens_details.cached_tokens",
    "llm.token_count.prompt_details.cache_read",
    "ai.usage.inputTokenDetails.cacheReadTokens",
    "ai.usage.cachedInputTokens",
    "llm.usage.cache_read_input_tokens",
    "cached_content_token_count",
    "gen_ai.aggregated_usage.cache_read.input_tokens",
    "gen_ai.usage.cached_input_tokens",
    "gen_ai.usage.cache_read_tokens",
    "gen_ai.usage.prompt_tokens_details.cache_read",
    "gen_ai.usage.input_tokens_details.cached_tokens",
    "llm.token_count.prompt_details.cache_input",
    "metadata.usage.cached_prompt_tokens",
)
CACHE_WRITE: Final = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.cache_write_input_tokens",
    "gen_ai.usage.input_tokens.cache_write",
    "gen_ai.usage.details.cache_write_tokens",
    "llm.token_count.prompt_details.cache_write",
    "ai.usage.inputTokenDetails.cacheWriteTokens",
    "llm.usage.cache_creation_input_tokens",
    "gen_ai.aggregated_usage.cache_write.input_tokens",
    "gen_ai.aggregated_usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_tokens",
    "gen_ai.usage.cache_write_tokens",
    "gen_ai.usage.cache_create_input_tokens",
    "gen_ai.usage.prompt_tokens_details.cache_write",
    "metadata.usage.cached_creation_tokens",
)
CACHE_WRITE_1H: Final = ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",)
"""The part of the cache writes that lives for an hour."""
REASONING: Final = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "gen_ai.usage.details.reasoning_tokens",
    "gen_ai.usage.completion_tokens_details.reasoning_tokens",
    "gen_ai.usage.experimental.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
    "ai.usage.outputTokenDetails.reasoningTokens",
    "ai.usage.reasoningTokens",
    "llm.usage.reasoning_tokens",
    "thoughts_token_count",
    "gen_ai.aggregated_usage.details.reasoning_tokens",
    "gen_ai.aggregated_usage.reasoning.output_tokens",
    "gen_ai.usage.completion_tokens_details.reasoning",
    "gen_ai.usage.output_tokens_details.reasoning_tokens",
    "gen_ai.usage.output_tokens_details.reasoning",
    "gen_ai.usage.reasoning_output_tokens",
    "gen_ai.usage.thinking_tokens",
)
TOTAL: Final = (
    "gen_ai.usage.total_tokens",
    "llm.token_count.total",
    "llm.usage.total_tokens",
    "ai.usage.totalTokens",
)
"""The producer's own total, which shows whether its counts include one another or are disjoint."""

COUNTS: Final = frozenset((*INPUT, *OUTPUT, *CACHE_READ, *CACHE_WRITE, *CACHE_WRITE_1H, *REASONING, *TOTAL))

RESPONSE_MODEL: Final = (
    "gen_ai.response.model",
    "ai.response.model",
    "llm.response.model",
    "llm.response.model_name",
    "llm.model_name",
    "embedding.model_name",
    "langfuse.observation.model.name",
    "mlflow.llm.model",
)
REQUEST_MODEL: Final = (
    "gen_ai.request.model",
    "ai.model.id",
    "llm.request.model",
    "traceloop.association.properties.ls_model_name",
    "model_name",
    "model",
)
NOT_A_MODEL: Final = frozenset({"unknown", "None", "null"})
"""What some producers write when they do not know the model."""
GATEWAY_MODEL: Final = ("litellm.provider.model",)
"""The model that a gateway really requested, when the names its callers see are aliases."""
PROVIDER: Final = (
    "gen_ai.provider.name",
    "gen_ai.system",
    "llm.provider",
    "ai.model.provider",
    "llm.system",
    "mlflow.llm.provider",
)
RESPONSE_ID: Final = ("gen_ai.response.id", "ai.response.id", "response_id", "llm.response.id", "gen_ai.response_id")
FINISHED: Final = (
    "gen_ai.response.finish_reasons",
    "gen_ai.response.finish_reason",
    "llm.finish_reason",
    "ai.response.finishReason",
    "anthropic.message.stop_reason",
)
SESSION: Final = (
    "gen_ai.conversation.id",
    "session.id",
    "copilot_chat.chat_session_id",
    "ai.telemetry.metadata.sessionId",
    "ai.telemetry.metadata.session_id",
    "ai.telemetry.metadata.conversationId",
    "ai.telemetry.metadata.threadId",
    "ai.telemetry.metadata.chatId",
    "ai.settings.context.sessionId",
    "ai.settings.context.session_id",
    "ai.settings.context.conversationId",
    "ai.settings.context.threadId",
    "ai.settings.context.chatId",
    "traceloop.association.properties.session_id",
    "traceloop.association.properties.conversation_id",
    "traceloop.association.properties.thread_id",
    "traceloop.association.properties.chat_id",
    "langfuse.session.id",
    "langsmith.metadata.session_id",
    "langsmith.metadata.thread_id",
    "langsmith.metadata.conversation_id",
    "langsmith.trace.session_id",
    "conversation.id",
    "sessionId",
)
LOGFIRE_TRACE: Final = "agent_trace_id"
LOGFIRE_GROUP: Final = "group_id"
"""Of a trace of the OpenAI Agents SDK, as Logfire sends it: the conversation that the program gave."""
PARENT_SESSION: Final = ("ai.request.headers.x-parent-session-id", "gen_ai.conversation.parent_id")
AGENT: Final = ("gen_ai.agent.name", "agent.name", "agent_name", "gen_ai.agent.id", "ai.telemetry.functionId")
TIER: Final = (
    "gen_ai.openai.response.service_tier",
    "openai.response.service_tier",
    "gen_ai.response.service_tier",
)
USER: Final = ("user.id", "enduser.id", "user.email")

COST: Final = (
    "github.copilot.cost",
    "gen_ai.cost.total_cost",
    "litellm.cost.total",
    "gen_ai.usage.cost",
    "operation.cost",
    "llm.cost.total",
)
"""The producer's own estimate of a call's cost, in US dollars."""
NANO_CREDITS: Final = "github.copilot.nano_aiu"
"""Copilot's own price of a call, in billionths of an AI credit, which is 0.01 US dollars."""

OPERATION: Final = "gen_ai.operation.name"
LEAF_OPERATIONS: Final = frozenset(
    {
        "chat",
        "chat.completions",
        "text.completions",
        "text_completion",
        "completion",
        "generate_content",
        "embeddings",
        "embedding",
        "embed",
        "responses",
        "openai.responses.create",
        "acompletion",
        "atext_completion",
        "aresponses",
        "aembedding",
        "anthropic_messages",
    }
)
"""Operations that are one request to a model. Other spans with usage may be sums of such requests."""
OPENINFERENCE_KIND: Final = "openinference.span.kind"
OPENINFERENCE_LEAVES: Final = frozenset({"LLM", "EMBEDDING"})
AI_SDK_OPERATION: Final = "ai.operationId"
AI_SDK_LEAVES: Final = (".doGenerate", ".doStream", ".doEmbed")
OTHER_LEAVES: Final[dict[str, frozenset[str] | None]] = {
    "llm.request.type": frozenset({"chat", "completion", "embedding"}),
    "langfuse.observation.type": frozenset({"generation", "embedding"}),
    "mlflow.spanType": frozenset({"CHAT_MODEL", "LLM", "EMBEDDING"}),
    "request_data": None,
}
"""Attributes of spans without an operation, and the values that stand for one request; None: each value does.

They are OpenLLMetry's, Langfuse's, MLflow's and Logfire's."""

HINT: Final = re.compile(
    rb"gen_ai\.|openinference\.|ai\.operationId|llm\.(?:token|usage|model|request)|ession(?:\.id|Id|_id|-id)"
    rb"|langfuse\.observation|mlflow\.spanType|agent_trace_id"
    rb"|oken(?:s|[._-]?(?:[cC]ount|usage))"
)
"""Matches the bytes of every span that may be relevant; a match does not mean that the span is relevant.

No alternative begins with a set of letters, which would make the search four times as slow."""
CONTEXT_HINT: Final = re.compile(
    r"gen_ai\.|openinference\.|ai\.operationId|llm\.|ession(?:\.id|Id|_id|-id)|langfuse\.observation"
    r"|mlflow\.spanType|agent_trace_id|oken"
)
"""The same among the names of a span's attributes."""

RESPONSE_ID_IN_TEXT: Final = (
    re.compile(r'"id"\s*:\s*"(resp_\w{10,})"'),
    re.compile(r'"id"\s*:\s*"(chatcmpl-[\w-]{10,})"'),
    re.compile(r'"id"\s*:\s*"(msg_\w{10,})"'),
)
"""OpenInference and MLflow do not send a response id, but include the response as JSON: only the id is extracted."""
RESPONSE_TEXTS: Final = ("output.value", "mlflow.spanOutputs")
MAX_TEXT: Final = 1 << 20
"""Maximum number of characters of such a text that are searched."""

LITELLM_METADATA: Final = "metadata.requester_metadata"
LITELLM_SESSION: Final = re.compile(r"'session_id': '([^'\\]{1,256})'")
ADK_SCOPE: Final = "gcp.vertex.agent"
CACHED_BESIDE: Final = re.compile(
    r"opentelemetry\.instrumentation\.(?:bedrock|botocore\.bedrock-runtime)$|openlit\.instrumentation\.(?:anthropic|bedrock)$"
)
"""Scopes whose input does not include cached tokens, as the provider's own does not, and whose total hides it."""
AGNO_SCOPE: Final = "openinference.instrumentation.agno"
AGNO_CACHED_BESIDE: Final = frozenset({"Anthropic", "AwsBedrock", "AzureFoundry", "VertexAI"})
"""Agno passes on the counts of each provider's API. These are its names of the APIs whose input leaves out cached
tokens: Anthropic's own, wherever it is served, and Bedrock's."""
REASONING_BESIDE: Final = re.compile(r"openlit\.instrumentation\.(?:google_ai_studio|vertexai)$")
"""Scopes whose output does not include reasoning, as Gemini's own does not, and which tell no total."""
GEMINI: Final = "google"
"""The provider whose API counts thoughts beside the output."""
INNERMOST_SCOPES: Final = ("com.anthropic.sdk.python",)
"""Scopes of the providers' own libraries, which see the original response."""

CLIENTS: Final = (
    ("github.copilot", "copilot"),
    ("copilot-chat", "vscode"),
    ("opencode", "opencode"),
    ("qwen-code", "qwen"),
    ("pydantic-ai", "pydantic-ai"),
    ("litellm", "litellm"),
    ("gcp.vertex.agent", "google-adk"),
    ("strands", "strands"),
    ("agent_framework", "agent-framework"),
    ("semantic_kernel", "semantic-kernel"),
    ("goose", "goose"),
    ("gen_ai", "ai-sdk"),
    ("ai", "ai-sdk"),
    ("opentelemetry.instrumentation.openai_agents", "openai-agents"),
    ("opentelemetry.instrumentation.genai.openai_agents", "openai-agents"),
    ("openinference.instrumentation.openai_agents", "openai-agents"),
    ("logfire.openai_agents", "openai-agents"),
    ("openinference.instrumentation.langchain", "langchain"),
    ("opentelemetry.instrumentation.langchain", "langchain"),
    ("opentelemetry.instrumentation.genai.langchain", "langchain"),
    ("openinference.instrumentation.smolagents", "smolagents"),
    ("openinference.instrumentation.crewai", "crewai"),
)
"""Instrumentation scope, or the beginning of one, and the client it stands for; everything else is `genai`."""
SERVICES: Final = {
    "github-copilot": "copilot",
    "copilot-chat": "vscode",
    "opencode": "opencode",
    "qwen-code": "qwen",
    "litellm": "litellm",
    "goose": "goose",
}
"""service.name, where it names the client for certain."""

COSTED_BY_LOGS: Final = re.compile(r"codex(?:[_-]|$)|com\.anthropic\.claude_code|claude-code$|gemini[_-]cli|qwen-code")
"""Scopes of programs whose log events cost, because their spans repeat the same usage."""
COSTED_BY_LOGS_SERVICES: Final = frozenset({"claude-code", "gemini-cli", "qwen-code"})
"""Their services, whose spans of any scope are ignored. Names that only begin like these may be anyone's program."""
COSTED_BY_LOGS_NAMES: Final = ("codex.usage.total_tokens", "codex.turn.token_usage.total_tokens")
"""Attributes that only such spans have. Codex's scope is its originator, which a program that embeds it chooses."""
