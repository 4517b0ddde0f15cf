-- The cost of every session and hour in ClickHouse, live from Kafka, with the newest version of each row.
-- Replace HOST:9092 and, if you changed TALLYSTREAM_PREFIX, the beginning of the topic's name.
-- See docs/ledger.md for what the columns mean.

CREATE DATABASE IF NOT EXISTS tallystream;

CREATE TABLE tallystream.session_hours_topic (value String)
ENGINE = Kafka
SETTINGS kafka_broker_list = 'HOST:9092',
         kafka_topic_list = 'tallystream.cost.session-hours',
         kafka_group_name = 'clickhouse-tallystream',
         kafka_format = 'RawBLOB';

-- A row replaces one of the same or a lower version, which is [generation, offset]. ClickHouse may read a record twice,
-- which changes nothing. Topics keep costs for 400 days, and so does this table.
CREATE TABLE tallystream.session_hours_versions
(
    connection_id String,
    session_id String,
    hour DateTime('UTC'),
    version UInt64,
    client LowCardinality(String),
    provider LowCardinality(String),
    buckets Array(String)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, connection_id, session_id)
TTL hour + INTERVAL 400 DAY;

CREATE MATERIALIZED VIEW tallystream.session_hours_reader TO tallystream.session_hours_versions AS
SELECT
    JSONExtractString(value, 'connection_id') AS connection_id,
    JSONExtractString(value, 'session_id') AS session_id,
    parseDateTimeBestEffort(JSONExtractString(value, 'hour'), 'UTC') AS hour,
    bitShiftLeft(JSONExtractUInt(value, 'version', 1), 48) + JSONExtractUInt(value, 'version', 2) AS version,
    JSONExtractString(value, 'client') AS client,
    JSONExtractString(value, 'provider') AS provider,
    JSONExtractArrayRaw(value, 'buckets') AS buckets
FROM tallystream.session_hours_topic
WHERE notEmpty(value);

-- Dollars are exact decimals; NULL where no request has a price.
CREATE VIEW tallystream.session_hours AS
SELECT
    connection_id,
    session_id,
    hour,
    client,
    provider,
    JSONExtractString(bucket, 'model') AS model,
    JSONExtract(bucket, 'service_tier', 'Nullable(String)') AS service_tier,
    JSONExtract(bucket, 'attribution', 'team', 'Nullable(String)') AS team,
    JSONExtract(bucket, 'attribution', 'user', 'Nullable(String)') AS user_name,
    JSONExtract(bucket, 'attribution', 'repo', 'Nullable(String)') AS repo,
    JSONExtract(bucket, 'attribution', 'agent', 'Nullable(String)') AS agent,
    JSONExtract(bucket, 'attribution', 'billing', 'Nullable(String)') AS billing,
    JSONExtractUInt(bucket, 'requests') AS requests,
    JSONExtractUInt(bucket, 'input_uncached') AS input_uncached,
    JSONExtractUInt(bucket, 'cache_read') AS cache_read,
    JSONExtractUInt(bucket, 'cache_write_5m') AS cache_write_5m,
    JSONExtractUInt(bucket, 'cache_write_1h') AS cache_write_1h,
    JSONExtractUInt(bucket, 'output') AS output,
    JSONExtractUInt(bucket, 'total_tokens') AS total_tokens,
    toDecimal128OrNull(JSONExtractString(bucket, 'cost_usd'), 12) AS cost_usd,
    toDecimal128OrNull(JSONExtractString(bucket, 'reported_cost_usd'), 12) AS reported_usd
FROM tallystream.session_hours_versions FINAL
ARRAY JOIN buckets AS bucket;
