"""A description of each dead-letter reason, with the next step."""

from __future__ import annotations

from tallystream.schemas.errors import Reason

WORDS: dict[Reason, tuple[str, str]] = {
    Reason.UNDECODABLE: (
        "A request body was not OTLP; the client received a 400.",
        'Check the exporter: the codex block needs protocol = "binary" or "json", and proxies must not rewrite bodies.',
    ),
    Reason.UNRECOGNISED_USAGE: (
        "A record carries token counts, but in an unknown form. The client may have renamed its attributes.",
        "It was not counted. Compare the client's version with the README's list and report it.",
    ),
    Reason.INVALID_COUNTS: (
        "A count is negative, not a number, or the parts exceed the whole.",
        "The client sent it this way; `deadletters show` has its fields. Report it with the client's version.",
    ),
    Reason.CONFLICTING_COUNTS: (
        "Two records of one request have different counts; the larger was counted.",
        "Nothing is lost. Check the client if it happens often: it reports one request with two different counts.",
    ),
    Reason.NO_SESSION: (
        "A usage record does not name a session, so its cost cannot be assigned.",
        "Check that nothing between client and gateway strips attributes (a collector's filter, say).",
    ),
    Reason.NO_TIME: (
        "A usage record has no valid time of its own, and the gateway's clock is never used instead.",
        "Check that nothing between client and gateway strips timestamps.",
    ),
    Reason.TOO_LATE: (
        "The event's hour ended longer ago than the lateness when it arrived.",
        "For old recordings, start a separate deployment with a longer TALLYSTREAM_LATENESS, such as P365D.",
    ),
    Reason.FROM_THE_FUTURE: (
        "The event lies a day or more ahead of the time it arrived.",
        "Set the clock of the machine that sent it.",
    ),
    Reason.BEYOND_DEDUPE: (
        "Too old for the ids that its session-hour remembers: it may be counted already, so it was not counted again.",
        "A client sent very old requests again. If the event is not in the table, report it with the session.",
    ),
    Reason.CLOSED: (
        "The event's hour has been removed from the state permanently.",
        "It arrived later than the lateness allows; the row of that hour is unchanged.",
    ),
    Reason.ROW_FULL: (
        "Its session-hour has as many models, tiers and attributions as one row can hold.",
        "A session that changes branch or team hundreds of times an hour is misconfigured: check its attributes.",
    ),
    Reason.REPRICE_REFUSED: (
        "A price correction of `tallystream reprice --apply` no longer fitted its session-hour; no usage is affected.",
        "Nothing, if the command then reported success: it corrected what was left. Otherwise run it again.",
    ),
    Reason.INVALID_MESSAGE: (
        "A message on the usage topic does not fit its schema.",
        "Another program writes to the topic, or versions are mixed: only gateways should produce to it.",
    ),
    Reason.RECORDS_LOST: (
        "Messages of the usage topic were removed, by retention or with a lost disk, before a worker had counted them.",
        "Their number is in the detail. Keep workers running, and see docs/operations/recovery.md.",
    ),
    Reason.UNKNOWN_CONNECTION: (
        "The request arrived while Kafka was unavailable, and its ingest id does not belong to any connection.",
        "Choose a connection from `tallystream connections list` and give the client its URLs.",
    ),
    Reason.MAPPING_FAILED: (
        "An expression of the Port mapping fails on the record, or gives an invalid entity; the others were sent.",
        "Try `tallystream port mapping test FILE --input SAMPLE`. The sink maps everything again when it starts.",
    ),
    Reason.INVALID_BILL: (
        "OpenAI's answer for a day has an amount that cannot be added up; the day's previous amounts are kept.",
        "It resolves itself if the next poll returns valid amounts. Currencies other than US dollars are not added up.",
    ),
    Reason.PORT_REFUSED: (
        "Port rejects the entity, or an entity that it relates to never arrived.",
        "Run `tallystream port blueprints diff`. The sink sends it again when it changes, and when the sink starts.",
    ),
}
"""Description and next step of each reason."""
