-- What billing's catalog says: metrics, the default plan, and which plans have which feature.
CREATE TABLE catalog (
    singleton            boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version              bigint NOT NULL CHECK (version > 0),
    default_entitlements jsonb NOT NULL,
    feature_plans        jsonb NOT NULL,
    restricted_percent   integer NOT NULL CHECK (restricted_percent BETWEEN 0 AND 100)
);

CREATE TABLE metric (
    slug        text PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('flow', 'level')),
    aggregation text NOT NULL CHECK (aggregation IN ('sum', 'count', 'max', 'unique', 'latest')),
    write       boolean NOT NULL
);

-- What billing pushed for an account; an account without a row has the default plan.
CREATE TABLE entitlement (
    account_id   text PRIMARY KEY,
    version      bigint NOT NULL CHECK (version > 0),
    entitlements jsonb NOT NULL,
    anchor_at    timestamptz NOT NULL,
    stage        text NOT NULL CHECK (stage IN ('current', 'grace', 'restricted', 'read_only', 'suspended'))
);

-- One window of one limit, written once; `used` follows the ledger, each event once.
CREATE TABLE quota_window (
    account_id  text NOT NULL,
    metric      text NOT NULL,
    period      text NOT NULL CHECK (period IN ('hour', 'day', 'month', 'lifetime')),
    start_at    timestamptz NOT NULL,
    end_at      timestamptz CHECK (end_at > start_at),
    used        numeric NOT NULL DEFAULT 0 CHECK (used >= 0),
    used_direct numeric NOT NULL DEFAULT 0 CHECK (used_direct BETWEEN 0 AND used),
    PRIMARY KEY (account_id, metric, period, start_at)
);

-- A threshold that was crossed; its row is what makes it fire once.
CREATE TABLE crossed_threshold (
    account_id        text NOT NULL,
    metric            text NOT NULL,
    period            text NOT NULL,
    start_at          timestamptz NOT NULL,
    limit_amount      bigint NOT NULL,
    threshold_percent integer NOT NULL CHECK (threshold_percent BETWEEN 1 AND 1000),
    used              numeric NOT NULL,
    notified          boolean NOT NULL,
    crossed_at        timestamptz NOT NULL,
    PRIMARY KEY (account_id, metric, period, start_at, limit_amount, threshold_percent),
    FOREIGN KEY (account_id, metric, period, start_at) REFERENCES quota_window
);
