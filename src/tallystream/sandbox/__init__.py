"""Stand-ins for OpenAI and Port, for demos, tests and trying things out without an account.

    sandbox = Sandbox(SandboxConfig(seed=1))
    await sandbox.start()
    sandbox.url + "/openai/v1"     for TALLYSTREAM_OPENAI_BASE_URL, with any key that begins with sk-sandbox
    sandbox.url + "/port"          for TALLYSTREAM_PORT_BASE_URL (the API is below /port/v1)

Every request and every answer is checked by the structure of the APIs' own OpenAPI (`spec/`). A wrong request gets the
error of the real API. A wrong answer of the sandbox becomes a 500 and is listed in `violations()`.

OpenAI (`openai_api`): see there for keys. Usage, costs, dashboard and legacy usage add up the same cells
(`openai_data`), so they agree; money is exact in the JSON text. Today grows by the minute; other days follow from the
seed alone, until `/sandbox/openai/restate`.

Port (`port_api`, `port_store`, `port_rules`, `limits`), kept stable for those who test against it:

    POST /v1/auth/access_token      any client id and secret, unless the sandbox was given a pair (401 otherwise);
                                    {ok, accessToken, expiresIn, tokenType}; tokens hold 3 h of the sandbox's clock;
                                    an unknown or expired token is 401 {ok: false, error: "unauthorized", message}
    blueprints                      GET, POST 201, GET one, PUT and PATCH 200, DELETE; 422 when the OpenAPI refuses it
                                    (`format: "date"`, an identifier with a space), when `required` names no property;
                                    404 when a relation's target is not a blueprint; 409 when it exists
    POST .../entities               201; 409 when it exists without upsert=true; merge=true merges properties and
                                    relations, merge=false overrides the whole entity; `upsert` must be given
    POST .../entities/bulk          1 to 20 entities (else 422), body at most 1 MiB (else 413); 200, or 207 when some
                                    failed: {ok, entities: [{created, identifier, index}], errors: [{identifier, index,
                                    statusCode, error, message}]}; in order, so an entity may relate to an earlier one
    an entity                       422 when a property has the wrong type, format or enum, is unknown, or is required
                                    and missing; null clears an optional one; 404 error "not_found" when a relation's
                                    target does not exist, unless create_missing_related_entities=true makes a bare one
    GET, PUT, PATCH, DELETE one     as documented; identifiers in paths are percent-encoded
    .../entities/search             {query, include, exclude, limit (200, at most 1,000), from}; entities by identifier,
                                    `next` is there while there are more; operators in `port_search`, others are 422
                                    "unsupported", never an empty answer
    .../entities-count, .../bulk/entities/delete (at most 100), /v1/entities/search
    aggregation properties          calculated when an entity is read (`port_aggregates`)
    _team, _user                    as in accounts since January 2025, with `SandboxConfig(people=True)`
    pages                           GET, POST 201, GET one, PATCH, DELETE, by Port's rules for dashboards (`port_pages`)
    integration                     POST 201, GET, PATCH, .../resync-state, .../kinds/{kind}/examples
                                    (`port_integrations`)
    rate limits                     by route family, per 300 s and with a burst (`limits.DEFAULTS`); each answer has
                                    x-ratelimit-period, -limit, -remaining, -reset (epoch seconds); beyond: 429 without
                                    Retry-After
    ownership                       an entity belongs to the User-Agent that wrote it last: `$datasource` in searches,
                                    `datasource` in /sandbox/port/entities

Tests control and inspect the sandbox through `/sandbox` (`admin`); faults are described in `faults.Fault`.
"""

from tallystream.sandbox.faults import Fault
from tallystream.sandbox.server import Sandbox, SandboxConfig

__all__ = ["Fault", "Sandbox", "SandboxConfig"]
