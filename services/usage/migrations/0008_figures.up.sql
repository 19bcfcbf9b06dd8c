-- What max, latest and unique metrics come to, beside the sums.

-- The property whose distinct values are counted.
ALTER TABLE metric ADD COLUMN property text;

-- Values are hashed with it, so that nobody can choose values whose hashes are alike.
CREATE TABLE distinct_salt (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    salt      uuid NOT NULL DEFAULT gen_random_uuid()
);

INSERT INTO distinct_salt DEFAULT VALUES;

ALTER TABLE rollup_quarter
    -- The largest amount of an event, and the newest event; of two at one instant the larger one.
    ADD COLUMN max_amount bigint CHECK (max_amount BETWEEN 0 AND 9007199254740991),
    ADD COLUMN latest_at timestamptz,
    ADD COLUMN latest_amount bigint CHECK (latest_amount BETWEEN 0 AND 9007199254740991);

ALTER TABLE rollup_day
    ADD COLUMN max_amount bigint CHECK (max_amount BETWEEN 0 AND 9007199254740991),
    ADD COLUMN latest_at timestamptz,
    ADD COLUMN latest_amount bigint CHECK (latest_amount BETWEEN 0 AND 9007199254740991);

-- What the rollups have of metrics that were counted before.
UPDATE rollup_quarter AS r
SET max_amount = e.max_amount, latest_at = e.latest_at, latest_amount = e.latest_amount
FROM (SELECT account_id, metric, date_bin('15 minutes', event_at, 'epoch') AS bucket_at, max(amount) AS max_amount,
             max(event_at) AS latest_at,
             (array_agg(amount ORDER BY event_at DESC, amount DESC))[1] AS latest_amount
      FROM ledger
      WHERE metric IN (SELECT slug FROM metric WHERE aggregation IN ('max', 'latest'))
      GROUP BY 1, 2, 3) AS e
WHERE (r.account_id, r.metric, r.bucket_at) = (e.account_id, e.metric, e.bucket_at);

UPDATE rollup_day AS r
SET max_amount = q.max_amount, latest_at = q.latest_at, latest_amount = q.latest_amount
FROM (SELECT account_id, metric, date_trunc('day', bucket_at, 'UTC') AS bucket_at, max(max_amount) AS max_amount,
             max(latest_at) AS latest_at,
             (array_agg(latest_amount ORDER BY latest_at DESC, latest_amount DESC))[1] AS latest_amount
      FROM rollup_quarter WHERE max_amount IS NOT NULL
      GROUP BY 1, 2, 3) AS q
WHERE (r.account_id, r.metric, r.bucket_at) = (q.account_id, q.metric, q.bucket_at);

-- The distinct values of unique metrics: the smallest hashes, 8 bytes each (`usage/src/domain/distinct.rs`).
CREATE TABLE rollup_distinct (
    account_id text NOT NULL,
    metric     text NOT NULL,
    -- A quarter of an hour, or a day of UTC.
    width      text NOT NULL CHECK (width IN ('quarter', 'day')),
    bucket_at  timestamptz NOT NULL,
    hashes     bytea NOT NULL CHECK (length(hashes) % 8 = 0),
    PRIMARY KEY (account_id, metric, width, bucket_at)
);
