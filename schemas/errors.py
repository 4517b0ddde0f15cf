"""The error tree: the type of an error decides how every component handles it.

Every exception of ours is one of these, ends in `Error` and says whether it is retryable: whether the same work may
succeed later without anybody changing it. That flag decides between trying again and giving up (a dead letter, an exit,
an answer to the client); `message` says what is wrong and `hint` what to do about it.

TallystreamError                code, message, hint: one line for people, the same three fields for programs
├── RetryableError              an external failure: the work is tried again, with a backoff
│   ├── UnreachableError        something needed did not answer in time (exit 3)
│   │   └── LedgerUnreachableError  agents.ledger: the database does not answer, or there is none yet
│   ├── LedgerDamagedError      agents.ledger: SQLite says that the file is corrupt; it is rebuilt from the topics
│   ├── LedgerReplacedError     agents.ledger: the database belongs to another deployment now; begin again
│   ├── NotLeaderError          streams.leader_election: another member leads, or may; stand by
│   ├── TopicRecreatedError     streams.kafka: a topic was deleted and created again, or cut; read it from its beginning
│   ├── LocalDiskError          streams: a local file cannot be used; the disk is full, read-only or without locks
│   │   └── LocalCopyDamagedError  a local copy of what Kafka has is damaged; the next start fills it again
│   ├── NotDurableError         streams.gateway: neither Kafka nor the spool has the messages; the client sends again
│   │   ├── SpoolFullError      the spool holds as many bytes as it may
│   │   └── SpoolWriteError     SQLite could not write
│   │       └── SpoolCorruptError  SQLite says that the file is damaged, or is not a database
│   ├── ProducerLostError       streams.gateway: the producer was closed with messages under way
│   ├── WriterClosingError      agents.port_sink: this sink stops; what it has not sent is sent by the next one
│   └── WrongFileError          streams.embedded: a mirror served another file than the one that is locked
├── PermanentError              work that would fail again however often it is tried
│   ├── InvalidRecordError      a record cannot be counted: it is kept as a dead letter with its `reason`
│   ├── InvalidBodyError        a body cannot be decoded: the client gets a 400
│   │   └── TooManyElementsError  it holds more than one body may: the client gets a 413
│   ├── InvalidMessageError     agents.session_cost: a message does not fit its schema; a dead letter
│   ├── TooLongError            streams.process: a JQ program did not end in time, or took too much memory
│   ├── NotOursError            agents.port_sink: Port's integration of that name belongs to something else
│   ├── UnmappableError         agents.port_sink: a mapping gave something that is not an entity; a dead letter
│   ├── InexactPriceError       agents.pricing: a price is not a whole number of pico-dollars
│   ├── InexactAmountError      agents.focus: an amount has more decimals than a Parquet column holds
│   ├── BadRequestError         tallystream.console: a parameter or a form field is not what it must be
│   ├── ForbiddenError          tallystream.console: the person may not do this
│   ├── NotFoundError           tallystream.console: the thing does not exist
│   ├── UsageError              the caller asked for something impossible (exit 2)
│   │   └── QueryError          agents.ledger: a query that the database does not take
│   ├── MismatchError           a check found a difference (exit 4)
│   ├── UnfitError              what exists does not fit what is needed: a topic's settings, a store's format
│   │   ├── LedgerUnfitError    agents.ledger: the database is of a newer release, or refuses what is needed
│   │   └── CountersUnusableError  tallystream.exporter: the counters' file is damaged or cannot be written
│   ├── WorkerCrashedError      streams.runtime.memory: where the process of a real worker would have ended
│   ├── UnsupportedQueryError   tallystream.sandbox: a search that the stand-in for Port does not know
│   └── ChangeRefusedError      tallystream.sandbox: a change that Port would not accept
├── RequestRefusedError         streams.gateway: the answer to a request; its status decides
│   └── UndecodableError        the body is not what its headers say (400)
├── FirstStartError             tallystream.supervisor: a component never became ready; its exit code decides
├── PollError                   streams.poller: a poll that published nothing; its reason decides
└── PortError                   agents.port_sink: a request to Port that was not carried out; its reason decides
    └── PortAnswerError         Port answered 400 or above
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar


class Reason(StrEnum):
    """Why a record was not counted. The values are public: they are labels, and `deadletters list` prints them."""

    UNDECODABLE = "undecodable"
    """The request body, or one record of it, is not OTLP."""
    UNRECOGNISED_USAGE = "unrecognised_usage"
    """A record carries token counts but no normaliser knows it: a client may have renamed something."""
    INVALID_COUNTS = "invalid_counts"
    """A count is negative or not a number, or the parts exceed the whole."""
    CONFLICTING_COUNTS = "conflicting_counts"
    """Two records of one request have different counts: the larger is counted, this one is kept as a dead letter."""
    NO_SESSION = "no_session"
    """A usage record does not name a session."""
    NO_TIME = "no_time"
    """A usage record has no valid time of its own; the gateway's clock is never used instead."""
    TOO_LATE = "too_late"
    """The event's hour ended longer than `lateness` before its message was appended."""
    FROM_THE_FUTURE = "from_the_future"
    """The event lies 24 h or more after the time its message was appended."""
    BEYOND_DEDUPE = "beyond_dedupe"
    """The event is older than the ids that its hour remembers, so it may have been counted already."""
    CLOSED = "closed"
    """The event's hour has been removed from the state permanently."""
    ROW_FULL = "row_full"
    """The session-hour has as many different models, tiers and attributions as one row can hold."""
    REPRICE_REFUSED = "reprice_refused"
    """A price correction no longer fits the session-hour: the costs stay as they were, and no usage is affected."""
    RECORDS_LOST = "records_lost"
    """Kafka no longer has messages that were acknowledged: a broker lost them, or retention took them uncounted."""
    INVALID_MESSAGE = "invalid_message"
    """A Kafka message does not fit its schema."""
    UNKNOWN_CONNECTION = "unknown_connection"
    """The request was quarantined while Kafka was unavailable, and its ingest id turned out to be unknown."""
    MAPPING_FAILED = "mapping_failed"
    """An expression of a Port mapping fails on the record, or does not produce an entity."""
    INVALID_BILL = "invalid_bill"
    """A provider's answer has an amount that cannot be added up: it is missing, not a number, or in another
    currency."""
    PORT_REFUSED = "port_refused"
    """Port rejects the entity permanently."""


class TallystreamError(Exception):
    """Base of all errors. `message` says what is wrong, `hint` what to do next."""

    code: ClassVar[str] = "error"
    exit_code: int = 1
    """Exit code of a command that ends with this error."""
    retryable: bool
    """Whether the same work may succeed later without anybody changing it. Set by the class, or by its reason."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RetryableError(TallystreamError):
    """The failure is external, so the work is tried again."""

    code = "retryable"
    exit_code = 3
    retryable = True


class PermanentError(TallystreamError):
    """Retrying cannot succeed, so the work is given up and the reason is kept."""

    code = "permanent"
    retryable = False


class InvalidRecordError(PermanentError):
    """A record that must be kept as a dead letter."""

    code = "invalid_record"

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidBodyError(PermanentError):
    """A body that is not what its Content-Type says."""

    code = "invalid_body"


class TooManyElementsError(InvalidBodyError):
    """A body that holds more resources, scopes or records than one body may."""

    code = "too_many_elements"

    def __init__(self, message: str) -> None:
        super().__init__(message, "send smaller batches")


class UsageError(PermanentError):
    """The command as given cannot be carried out."""

    code = "usage"
    exit_code = 2


class UnreachableError(RetryableError):
    """Something required is unavailable, or did not answer in time."""

    code = "unreachable"


class MismatchError(PermanentError):
    """Two things that must be equal are not."""

    code = "mismatch"
    exit_code = 4


class UnfitError(PermanentError):
    """Something exists but is unsuitable: starting anyway could lose or double data."""

    code = "unfit"


_BY_EXIT_CODE: Mapping[int | None, type[TallystreamError]] = MappingProxyType(
    {kind.exit_code: kind for kind in (UsageError, UnreachableError, MismatchError)}
)


def error_of_exit(code: int | None) -> type[TallystreamError]:
    """Return the kind of error that a process of ours ended with: UnfitError unless its exit code says otherwise."""
    return _BY_EXIT_CODE.get(code, UnfitError)
