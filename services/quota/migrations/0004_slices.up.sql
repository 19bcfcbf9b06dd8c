-- What quota keeps of an account besides what billing pushed. A row comes with the first slice or the first change.
CREATE TABLE account_state (
    account_id text PRIMARY KEY,
    -- Grows with every change of what limits and windows follow from: entitlements, overrides, stage, calendar.
    revision   bigint NOT NULL CHECK (revision > 0),
    -- The segments of the calendar, the oldest first.
    calendar   jsonb NOT NULL,
    changed_at timestamptz NOT NULL
);

CREATE INDEX account_state_by_change ON account_state (changed_at);

-- What replaces the amount of one of the plan's limits for one account.
CREATE TABLE limit_override (
    account_id text NOT NULL,
    metric     text NOT NULL,
    period     text NOT NULL CHECK (period IN ('hour', 'day', 'month', 'lifetime')),
    amount     bigint NOT NULL CHECK (amount BETWEEN 0 AND 9007199254740991),
    expires_at timestamptz,
    note       text NOT NULL,
    PRIMARY KEY (account_id, metric, period)
);

CREATE INDEX limit_override_by_expiry ON limit_override (expires_at) WHERE expires_at IS NOT NULL;

-- What a window has granted: open_cap + charged + overrun - returned. Each is only ever added to or taken from.
ALTER TABLE quota_window
    -- Caps of slices that are open or closing; the part of them that holds have.
    ADD COLUMN open_cap bigint NOT NULL DEFAULT 0 CHECK (open_cap >= 0),
    ADD COLUMN held     bigint NOT NULL DEFAULT 0 CHECK (held BETWEEN 0 AND open_cap),
    -- What was charged to slices that are sealed.
    ADD COLUMN charged  bigint NOT NULL DEFAULT 0 CHECK (charged >= 0),
    -- Units that entered without permission, and units that were given back.
    ADD COLUMN overrun  numeric NOT NULL DEFAULT 0 CHECK (overrun >= 0),
    ADD COLUMN returned numeric NOT NULL DEFAULT 0 CHECK (returned >= 0);

UPDATE quota_window
SET charged = least(used - used_direct, 9007199254740991), overrun = used_direct, used_direct = 0;

-- When a decision about a metric is answered: once the ledger has it, or before.
ALTER TABLE metric
    ADD COLUMN recording text NOT NULL DEFAULT 'durable' CHECK (recording IN ('durable', 'buffered'));

-- A slice of every window that an account's limits of one metric have at one time.
CREATE TABLE slice (
    id            uuid PRIMARY KEY,
    account_id    text NOT NULL,
    metric        text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('replica', 'hold', 'extra')),
    -- The process that spends it, one number each time it starts; the hold that it is, where it is one.
    owner         uuid NOT NULL,
    -- Decisions that it paid for are answered before the ledger has them: only its owner may let it be sealed.
    buffered      boolean NOT NULL,
    cap           bigint NOT NULL CHECK (cap BETWEEN 0 AND 9007199254740991),
    state         text NOT NULL CHECK (state IN ('open', 'closing', 'sealed')),
    charge        bigint CHECK (charge BETWEEN 0 AND cap),
    -- The windows that it was carved from: their periods, their first instants, the first instants after them.
    periods       text[] NOT NULL,
    starts        timestamptz[] NOT NULL,
    ends          timestamptz[] NOT NULL,
    carved_at     timestamptz NOT NULL,
    spend_until   timestamptz NOT NULL,
    hard_end_at   timestamptz NOT NULL,
    CHECK ((charge IS NOT NULL) = (state = 'sealed'))
);

CREATE INDEX slice_unsettled ON slice (account_id, metric) WHERE state <> 'sealed';
CREATE INDEX slice_by_time ON slice (spend_until) WHERE state = 'open';
CREATE INDEX slice_closing ON slice (id) WHERE state = 'closing';
CREATE INDEX slice_by_owner ON slice (owner);
CREATE INDEX slice_open_holds ON slice (account_id) WHERE kind = 'hold' AND state = 'open';
CREATE INDEX slice_ended ON slice (hard_end_at) WHERE state = 'sealed';

-- The replicas that are alive. Slices of one that is not seen any more are settled; a wrong suspicion costs it a
-- retry, and nothing else.
CREATE TABLE replica (
    id      uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL
);

-- Events that quota told its windows of itself, before the bus did.
CREATE TABLE applied_event (
    account_id text NOT NULL,
    source     text NOT NULL,
    event_id   text NOT NULL,
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, source, event_id)
);

CREATE INDEX applied_event_by_time ON applied_event (applied_at);
