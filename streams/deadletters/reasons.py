"""Each reason of a dead letter in words, with the next step, for people."""

from __future__ import annotations

from tallystream.schemas.errors import Reason

WORDS: dict[Reason, tuple[str, str]] = {
    Reason.UNDECODABLE: (
        "A request body was not OTLP; the client was answered 400.",
        'Check the exporter: the codex block needs protocol = "binary" or "json", and nothing may rewrite bodies.',
    ),
    Reason.UNRECOGNISED_USAGE: (
        "A record carries token counts, but not in a shape we know: a client may have renamed something.",
        "Nothing of it was counted. Compare the client's version with the README's list and report it.",
    ),
    Reason.INVALID_COUNTS: (
        "A count is negative, not a number, or the parts exceed the whole.",
        "The client wrote it so; `deadletters show` has its fields. Report it with the client's version.",
    ),
    Reason.CONFLICTING_COUNTS: (
        "Two records of one request have different counts; the larger was counted.",
        "Nothing is lost. Look at the client if it happens often: it reports one request in two ways.",
    ),
    Reason.NO_SESSION: (
        "A usage record names no session, so its cost belongs to nothing.",
        "Check that nothing between client and gateway strips attributes (a collector's filter, say).",
    ),
    Reason.NO_TIME: (
        "A usage record has no time of its own, and ours is never used instead.",
        "Check that nothing between client and gateway strips timestamps.",
    ),
    Reason.TOO_LATE: (
        "The event's hour ended longer ago than the lateness when it arrived.",
        "For old recordings start with a longer TALLYSTREAM_LATENESS (P365D, say) in a deployment of its own.",
    ),
    Reason.FROM_THE_FUTURE: (
        "The event lies a day or more ahead of the time it arrived.",
        "Set the clock of the machine that sent it.",
    ),
    Reason.BEYOND_DEDUPE: (
        "Too old for the ids its session-hour remembers: it may have been counted already, so it was not.",
        "A client resent very old requests; if it is not in the table, report it with the session.",
    ),
    Reason.CLOSED: (
        "The event's hour has been removed from the state for good.",
        "It came later than the lateness allows; the row of that hour stands as it is.",
    ),
    Reason.ROW_FULL: (
        "Its session-hour has as many models, tiers and attributions as one row can hold.",
        "A session that changes branch or team hundreds of times an hour is a mistake: look at its attributes.",
    ),
    Reason.INVALID_MESSAGE: (
        "A message on the usage topic does not fit its schema.",
        "Somebody else writes to the topic, or versions are mixed: only gateways should produce to it.",
    ),
    Reason.RECORDS_LOST: (
        "Messages of the usage topic were removed, by retention or with a disk, before a worker had counted them.",
        "Their number is in the detail. Keep workers running, and see docs/operations/recovery.md.",
    ),
    Reason.UNKNOWN_CONNECTION: (
        "The ingest id came while Kafka was away, and belongs to no connection.",
        "`tallystream connections list`, and give the client the URLs of one of them.",
    ),
    Reason.MAPPING_FAILED: (
        "An expression of the Port mapping fails on the record, or gives no entity; the record's others went on.",
        "Try it: `tallystream port mapping test FILE --input SAMPLE`. The sink maps everything anew when it starts.",
    ),
    Reason.INVALID_BILL: (
        "OpenAI's answer for a day has an amount that cannot be added up; the day keeps what it had.",
        "Nothing is to be done when the next poll answers well. Another currency than US dollars is not added up.",
    ),
    Reason.PORT_REFUSED: (
        "Port does not take the entity, or what it relates to never came.",
        "`tallystream port blueprints diff`; the sink offers it again when it changes, and when the sink starts.",
    ),
}
"""Each reason in words, and the next step."""
