-- Use out of the ordinary (`usage/src/domain/anomaly.rs`).

-- Hours of one kind, close to each other, whose use of a metric lies outside of what is expected.
CREATE TABLE anomaly (
    anomaly_id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id      text NOT NULL CHECK (length(account_id) BETWEEN 1 AND 128),
    metric          text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('spike', 'drop')),
    -- From the first instant of its first hour to the first one after its last so far.
    start_at        timestamptz NOT NULL,
    end_at          timestamptz NOT NULL CHECK (end_at > start_at),
    -- How many of the hours between lie outside, and what was used and expected in them.
    hours           integer NOT NULL CHECK (hours >= 1),
    actual          numeric NOT NULL CHECK (actual >= 0),
    expected        numeric NOT NULL CHECK (expected >= 0),
    -- The hour that is farthest from what is expected; the score is in thousandths of a robust deviation.
    peak_start_at   timestamptz NOT NULL,
    peak_actual     bigint NOT NULL CHECK (peak_actual BETWEEN 0 AND 9007199254740991),
    peak_expected   bigint NOT NULL CHECK (peak_expected BETWEEN 0 AND 9007199254740991),
    peak_low        bigint NOT NULL CHECK (peak_low BETWEEN 0 AND 9007199254740991),
    peak_high       bigint NOT NULL CHECK (peak_high BETWEEN 0 AND 9007199254740991),
    peak_score      bigint NOT NULL CHECK (peak_score BETWEEN 0 AND 9007199254740991),
    -- The score that was last told.
    told_score      bigint NOT NULL CHECK (told_score BETWEEN 0 AND 9007199254740991),
    detected_at     timestamptz NOT NULL,
    UNIQUE (account_id, metric, kind, start_at)
);

CREATE INDEX anomaly_newest ON anomaly (account_id, start_at DESC, anomaly_id DESC);
CREATE INDEX anomaly_oldest ON anomaly (end_at);

-- How far the look at finished hours is. The process that holds the row looks, a batch of accounts and metrics at a time, and
-- writes what it found and how far it is in one transaction: whoever goes on after it goes on there.
CREATE TABLE anomaly_look (
    singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- The hour of UTC that is looked at next, or now; null before the first.
    hour_at       timestamptz,
    -- The account and metric that were looked at last in this hour; empty before the first.
    after_account text NOT NULL DEFAULT '',
    after_metric  text NOT NULL DEFAULT '',
    holder        uuid,
    held_until    timestamptz
);

INSERT INTO anomaly_look DEFAULT VALUES;
