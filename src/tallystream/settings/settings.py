"""Settings, read once at the start from flags, `TALLYSTREAM_*` and the TOML file that `TALLYSTREAM_CONFIG` names."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from tallystream.agents.ledger.config import LedgerPlace
from tallystream.schemas.errors import UsageError
from tallystream.settings.fields import ByteSize, Duration
from tallystream.settings.ocean_names import PageNames, TomlWithout
from tallystream.settings.service_links import WithoutServiceLinks
from tallystream.streams.embedded import secret
from tallystream.streams.embedded.jars import default_cache_dir
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


def default_data_dir() -> Path:
    """Return `$XDG_DATA_HOME/tallystream`, by default `~/.local/share/tallystream`.

    Raises:
        UsageError: there is no home directory.

    """
    if given := os.environ.get("XDG_DATA_HOME"):
        return Path(given) / "tallystream"
    try:
        return Path.home() / ".local" / "share" / "tallystream"
    except RuntimeError:
        raise UsageError(
            "this user has no home directory, so there is no data dir by default",
            "name one with --data-dir or TALLYSTREAM_DATA_DIR",
        ) from None


class Settings(BaseSettings):
    """All settings. The string below each field documents it.

    Durations are written as `15s`, `90m`, `24h`, `7d` or in ISO 8601, sizes as bytes or with a unit (`64MiB`).
    """

    # Empty variables count as unset, because env files often list variables with nothing after the `=`.
    model_config = SettingsConfigDict(env_prefix="TALLYSTREAM_", env_ignore_empty=True, extra="forbid", frozen=True)

    data_dir: Path = Field(default_factory=default_data_dir)
    """State of this machine: embedded Kafka, stores, spools, run.json."""
    cache_dir: Path = Field(default_factory=default_cache_dir)
    """Downloads: Kafka's jars."""
    maven_mirror: str | None = None
    """URL of the Maven repository that the embedded Kafka's jars come from; unset: jgo's default."""
    kafka: str | None = None
    """`host:port[,...]` of a Kafka cluster; unset: the embedded one that `tallystream up` runs in `data_dir`."""
    kafka_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the cluster."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """SASL mechanism."""
    kafka_username: str | None = None
    """SASL user."""
    kafka_password: SecretStr | None = None
    """SASL password."""
    kafka_ca: Path | None = None
    """PEM file of the CA to trust; unset: the system's."""
    kafka_cert: Path | None = None
    """PEM file of our client certificate (mutual TLS)."""
    kafka_key: Path | None = None
    """PEM file of its key."""
    prefix: str = Field(default="tallystream", pattern=r"^[a-zA-Z0-9._-]{1,80}$")
    """Prefix of every topic, group and app id."""
    partitions: int = Field(default=12, ge=1, le=1000)
    """Partitions of `usage`, its table and its rows. They cannot be changed after creation."""
    replication: int | None = Field(default=None, ge=1, le=15)
    """Replication factor of new topics; by default three if the cluster is set up for three brokers, otherwise one."""
    lateness: Duration = Field(default=timedelta(days=7), ge=timedelta(0))
    """How long after its hour ended an event is still counted."""
    calls_hold: Duration = Field(default=timedelta(seconds=15), gt=timedelta(0), le=timedelta(minutes=10))
    """How long a model call that spans report waits for other spans of the same call. Spans
    that arrive later change no total, and their information on the call (session, cached tokens) is not added."""
    coverage: bool = True
    """Whether the gateway reads what clients' metrics and spans say of their usage, and compares it with what was
    counted from their logs, so that lost logs are noticed (`tallystream coverage`). It never adds to a cost."""
    user_key: SecretStr | None = None
    """Key of the hash that replaces user names. Required with `kafka`; otherwise generated and kept in `data_dir`."""
    user_names: bool = False
    """Keep user names in clear text instead of hashing them."""
    ops_host: str = "127.0.0.1"
    """Address of the ops port of a component that is started alone; `up` always uses loopback."""
    tls_cert: Path | None = None
    """PEM file of the certificate chain the gateway serves; unset: plain HTTP."""
    tls_key: Path | None = None
    """PEM file of its key. Both files are reloaded when they change."""
    prices: Path | None = None
    """TOML file of your own dated prices, which take precedence over the book's."""
    worker_membership: Literal["static", "dynamic"] = "static"
    """`static`: a worker that restarts under its instance name gets its partitions back at once. The partitions of a
    worker that stops for good move after the session timeout. `dynamic`: a worker that stops hands over at once; after
    a crash its partitions move after the session timeout."""
    worker_session_timeout: Duration = Field(
        default=timedelta(seconds=6), ge=timedelta(seconds=1), le=timedelta(minutes=30)
    )
    """How long the group waits for a silent worker (by default brokers allow 6 s to 30 min). If it
    is longer than a restart takes, a restart moves no partitions. If it is shorter, the partitions of a worker that
    hangs move sooner."""
    worker_standby: bool = False
    """Keep copies of the partitions that other workers own, so that a worker that takes one over continues within
    seconds even if its former owner's disk is lost. Each such worker then has all of the state on its disk."""
    spool_max_bytes: ByteSize = Field(default=1 << 30, ge=1 << 20)
    """Bytes the gateway's spool may hold before it answers 503."""
    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of OTLP/gRPC; by default the one before the HTTP port; 0 turns gRPC off."""
    quota_requests: int = Field(default=0, ge=0)
    """Requests per second of one connection, with bursts of ten seconds' worth; requests above it get 429. 0: no
    limit. `connections create --quota` sets it for one connection. Note that Codex never repeats a refused request."""
    quota_bytes: ByteSize = Field(default=0, ge=0)
    """Bytes of request bodies per second of one connection, likewise."""
    quota_held_bytes: ByteSize = Field(default=192 << 20, ge=0)
    """Bytes of one connection's bodies in progress at any time, likewise."""
    quota_dead_letters: int = Field(default=100, ge=0)
    """Dead letters per second of one connection, likewise."""
    max_body_bytes: ByteSize = Field(default=64 << 20, ge=1024)
    """Largest request body, after decompression."""
    openai_base_url: str = Field(default="https://api.openai.com/v1", pattern=r"^https?://[^@/?#\s]+(/[^?#\s]*)?$")
    """Base URL of OpenAI's API."""
    openai_api_token: SecretStr | None = None
    """OpenAI API key (`sk-...`); `tallystream up` starts the poller when it is set."""
    openai_api_token_file: Path | None = None
    """File that contains the API key instead; read at every poll, so that the key can be rotated."""
    openai_admin_token: SecretStr | None = None
    """Admin key (`sk-admin-...`) for `/organization/*`; unset: the API key is tried."""
    openai_admin_token_file: Path | None = None
    """File that holds the admin key instead."""
    openai_session_token: SecretStr | None = None
    """Browser session key (`sess-...`) for `/dashboard/billing/usage`; unset: the API key is tried."""
    openai_session_token_file: Path | None = None
    """File that holds the session key instead."""
    openai_organization: str | None = Field(default=None, pattern=r"^[\x21-\x7e]+$")
    """Sent as `OpenAI-Organization`, for keys of several organisations."""
    openai_project: str | None = Field(default=None, pattern=r"^[\x21-\x7e]+$")
    """Sent as `OpenAI-Project`."""
    openai_interval: Duration = Field(default=timedelta(minutes=120), ge=timedelta(seconds=1))
    """Time between two polls."""
    openai_backfill: int = Field(default=0, ge=0, le=3650)
    """Days of history to fetch once; 0: the default of each resource (30 days)."""
    openai_resources: str | None = None
    """TOML or YAML files that add resources to poll, or change or disable built-in ones: paths of files or folders,
    separated by commas."""
    openai_timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """How long one request to OpenAI may take."""
    openai_failover: Duration = Field(default=timedelta(seconds=10), ge=timedelta(seconds=1))
    """A standby poller takes over this long after the active one's last sign of life. Kafka's
    minimum is 6 s unless the brokers allow less."""
    openai_proxy: SecretStr | None = None
    """Proxy URL for OpenAI; a secret, because it may contain a password."""
    openai_ca: Path | None = None
    """PEM file of the CA that OpenAI's (or the proxy's) certificate must be signed by; unset: the system's."""
    anthropic_base_url: str = Field(
        default="https://api.anthropic.com/v1", pattern=r"^https?://[^@/?#\s]+(/[^?#\s]*)?$"
    )
    """Base URL of Anthropic's API."""
    anthropic_admin_token: SecretStr | None = None
    """Anthropic admin key (`sk-ant-admin...`) or analytics key, for its cost and usage reports; `tallystream up` starts
    the poller when it is set."""
    anthropic_admin_token_file: Path | None = None
    """File that contains it instead; read at every poll."""
    port_client_id: str | None = None
    """Port's client id; `tallystream up` starts the sink when it and its secret are set."""
    port_client_secret: SecretStr | None = None
    """Port's client secret."""
    port_client_secret_file: Path | None = None
    """File that holds the client secret instead; read when the sink starts."""
    port_base_url: str = Field(default="https://api.getport.io", pattern=r"^https?://[^@/?#\s]+(/[^?#\s]*)?$")
    """Base URL of Port's API; `https://api.us.getport.io` for accounts in the US."""
    port_identifier: str = Field(default="tallystream", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """Name of this integration, part of the User-Agent: Port shows it as the source of our entities."""
    port_mapping: str | None = None
    """YAML files of the mapping from records to entities: paths of files or folders, separated by commas. `default`
    among them is the mapping of `tallystream port mapping show`, which is used if nothing is set."""
    port_session_hours: bool = False
    """Also create an entity for each hour of each session. Your own mapping files decide this by themselves."""
    port_initialize: bool = True
    """Create our blueprints if they are missing in Port. Only `tallystream port apply` changes them."""
    port_ownership: bool = True
    """Relate sessions to the teams, users and services of Port that their attribution names, if Port has them. None is
    ever created."""
    port_resync: Duration = Field(default=timedelta(days=1), ge=timedelta(seconds=1))
    """Time between two comparisons of all entities with what was sent."""
    port_retention: Duration | None = Field(default=None, ge=timedelta(days=1))
    """Delete entities of hours, days and sessions that ended longer ago; unset: delete nothing."""
    port_samples: bool = False
    """Keep a sample of each kind of records in `data_dir`/samples, for `tallystream port mapping test`."""
    port_register: bool = True
    """Register the sink as an integration in Port, which shows it with its mapping and last sync."""
    port_send_samples: bool = False
    """Send a sample of each kind of records to Port, with secrets, addresses and users masked; Port's mapping editor
    shows them."""
    port_timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """How long one request to Port may take."""
    port_failover: Duration = Field(default=timedelta(seconds=10), ge=timedelta(seconds=1))
    """A standby sink takes over this long after the active one's last sign of life. Kafka's minimum
    is 6 s unless the brokers allow less."""
    port_proxy: SecretStr | None = None
    """Proxy URL for Port; a secret, because it may contain a password."""
    port_ca: Path | None = None
    """PEM file of the CA that Port's (or the proxy's) certificate must be signed by; unset: the system's."""

    ledger: SecretStr | None = Field(default=None)
    """`postgresql://USER:PASSWORD@HOST/DATABASE` keeps the ledger in PostgreSQL, in a schema named after the prefix.
    Unset: a SQLite file in `data_dir`."""
    console_auth: Literal["token", "proxy"] = "token"
    """Who may use the console. `token`: anyone with a link of `tallystream console link`. `proxy`: the users that a
    trusted proxy names."""
    console_proxies: str = "127.0.0.1/32,::1/128"
    """Networks of the proxies whose user and group headers are trusted (`proxy`), separated by commas."""
    console_user_header: str = Field(default="X-Forwarded-User", pattern=r"^[A-Za-z0-9-]+$")
    """Header in which the proxy names the user."""
    console_groups_header: str = Field(default="X-Forwarded-Groups", pattern=r"^[A-Za-z0-9-]+$")
    """Header in which the proxy names the user's groups, separated by commas."""
    console_admins: str = "tallystream-admins"
    """Groups whose members may make changes in the console (`proxy`), separated by commas. All others may only read."""
    console_hosts: str = ""
    """Host names of the console in addition to loopback's, separated by commas."""
    console_session: Duration = Field(default=timedelta(hours=12), ge=timedelta(minutes=1))
    """How long a login to the console lasts."""

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, file, and last the names of Port's page."""
        environment = WithoutServiceLinks(settings_cls)
        file = os.environ.get("TALLYSTREAM_CONFIG")
        if file and not Path(file).is_file():
            # a typo here would silently ignore the file, for instance its certificate or its limits
            raise FileNotFoundError("it does not exist")
        toml = (TomlWithout(settings_cls, Path(file)),) if file else ()
        page = PageNames(settings_cls, os.environ, Path(file) if file else None)
        return (init_settings, environment, *toml, page)

    @field_validator("openai_resources", "port_mapping", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """Accept a list of paths from the TOML file, and paths from Python."""
        if isinstance(given, list):
            return ",".join(map(str, given))
        return str(given) if isinstance(given, Path) else given

    @model_validator(mode="before")
    @classmethod
    def _listener_url(cls, given: Any) -> Any:
        """Accept `PLAINTEXT://host:port`, the form of brokers' listeners, as protocol and address."""
        kafka = given.get("kafka") if isinstance(given, dict) else None
        if not isinstance(kafka, str) or "://" not in kafka:
            return given
        parts = [part.strip().rpartition("://") for part in kafka.split(",")]
        protocols = {protocol.upper() for protocol, _, _ in parts if protocol}
        if len(protocols) > 1 or protocols - {str(given.get("kafka_protocol") or next(iter(protocols)))}:
            raise ValueError("kafka names another protocol than kafka_protocol: write host:port, and set the protocol")
        return given | {"kafka": ",".join(host for _, _, host in parts), "kafka_protocol": protocols.pop()}

    def kafka_settings(self, bootstrap: str) -> KafkaSettings:
        """Return the settings for the cluster at `bootstrap`: if it is not the one of `kafka`, it is the embedded one.

        Raises:
            UsageError: the embedded broker's secret cannot be read.

        """
        if bootstrap != self.kafka:
            return self.embedded_kafka(bootstrap)
        return KafkaSettings(
            bootstrap,
            self.kafka_protocol,
            self.kafka_sasl_mechanism,
            self.kafka_username,
            self.kafka_password.get_secret_value() if self.kafka_password else None,
            self.kafka_ca,
            self.kafka_cert,
            self.kafka_key,
        )

    def embedded_kafka(self, bootstrap: str) -> KafkaSettings:
        """Return the settings for the embedded broker in `data_dir`, which listens at `bootstrap`.

        Raises:
            UsageError: its secret cannot be read.

        """
        return secret.settings(self.data_dir / "kafka", bootstrap)

    @property
    def polls_anthropic(self) -> bool:
        """Whether a key to poll Anthropic is set."""
        return self.anthropic_admin_token is not None or self.anthropic_admin_token_file is not None

    @property
    def polls_openai(self) -> bool:
        """Whether a key to poll OpenAI is set."""
        keys = (self.openai_api_token, self.openai_admin_token, self.openai_session_token)
        files = (self.openai_api_token_file, self.openai_admin_token_file, self.openai_session_token_file)
        return any(one is not None for one in (*keys, *files))

    @property
    def writes_to_port(self) -> bool:
        """Whether credentials for Port are set."""
        secret = self.port_client_secret or self.port_client_secret_file
        return self.port_client_id is not None and secret is not None

    def port_secret(self) -> str | None:
        """Return Port's client secret, or None if it is not set.

        Raises:
            UsageError: its file cannot be read.

        """
        if self.port_client_secret_file is None:
            return self.port_client_secret.get_secret_value() if self.port_client_secret else None
        try:
            return self.port_client_secret_file.read_text().strip()
        except (OSError, ValueError) as exc:
            raise UsageError(
                f"the file {self.port_client_secret_file} of Port's client secret cannot be read: {type(exc).__name__}",
                "is it mounted?",
            ) from None

    def ledger_place(self) -> LedgerPlace:
        """Return the database of this deployment's ledger.

        Raises:
            UsageError: `ledger` is not a PostgreSQL URL.

        """
        url = self.ledger.get_secret_value().strip() if self.ledger else None
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            raise UsageError(
                "TALLYSTREAM_LEDGER is not a PostgreSQL URL",
                "use postgresql://USER:PASSWORD@HOST:5432/DATABASE, or unset it",
            )
        return LedgerPlace(self.prefix, self.data_dir / "ledger", url)

    def topics(self) -> Topics:
        """Return the topics of this deployment."""
        return Topics(self.prefix, self.partitions, self.replication)
