"""The three mappings of Port's documentation page as users paste them, including the traps of YAML and null."""

DAILY = """\
resources:
  - kind: /dashboard/billing/usage
    selector:
      query: 'true'
      query_params:
        start_date: '((now | floor) - (86400 * 30)) | strftime("%Y-%m-%d")'
        end_date: '(now | floor) | strftime("%Y-%m-%d")'
    port:
      entity:
        mappings:
          identifier: "daily-" + (.timestamp // .aggregation_timestamp // "unknown")
          title: "OpenAI Usage " + (.timestamp // .aggregation_timestamp // "unknown")
          blueprint: '"openai_daily_usage"'
          properties:
            date: (.timestamp // .aggregation_timestamp // "" | split("T")[0])
            total_requests: .total_requests // 0
            total_tokens: .total_tokens // 0
            total_cost: (.total_usage // 0) / 100
"""
USAGE = """\
resources:
  - kind: /usage
    selector:
      query: 'true'
      query_params:
        date: '(now | floor) | strftime("%Y-%m-%d")'
    port:
      entity:
        mappings:
          identifier: .snapshot_id + "-" + ((.aggregation_timestamp // 0) | tostring)
          title: .snapshot_id + " usage"
          blueprint: '"openai_model_usage"'
          properties:
            model: .snapshot_id
            date: (.aggregation_timestamp // 0 | strftime("%Y-%m-%d"))
            requests: .n_requests // 0
            tokens: (.n_context_tokens_total // 0) + (.n_generated_tokens_total // 0)
"""
MODELS = """\
resources:
  - kind: /models
    selector:
      query: 'true'
      data_path: '.data'
    port:
      entity:
        mappings:
          identifier: .id
          title: .id
          blueprint: '"openai_model"'
          properties:
            modelId: .id
            object: .object
            ownedBy: .owned_by
            permission: .permission
"""
PASTED = DAILY + USAGE + MODELS
"""All three in one text, as if copied one after another."""


def flattened(text: str) -> str:
    """Return the text without indentation, as copied from a page's plain text."""
    return "".join(line.lstrip(" ") for line in text.splitlines(keepends=True))
