-- Who subscribed to what, and what the quota service must know of it.

CREATE TABLE subscription (
    id            uuid PRIMARY KEY,
    account_id    text NOT NULL,
    plan          text NOT NULL,
    plan_version  integer NOT NULL,
    status        text NOT NULL CHECK (status IN ('trialing', 'active', 'past_due', 'canceled')),
    -- Who computes its invoices; never both.
    billed_by     text NOT NULL CHECK (billed_by IN ('octroi', 'stripe')),
    provider      text NOT NULL CHECK (provider IN ('manual', 'stripe')),
    -- Periods are counted from here, in this zone, so that a 31st comes back after a short month.
    anchor_at     timestamptz NOT NULL,
    zone          text NOT NULL DEFAULT 'UTC',
    -- The end of its newest period.
    period_end_at timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    canceled_at   timestamptz,
    UNIQUE (id, account_id),
    FOREIGN KEY (plan, plan_version) REFERENCES plan_version (plan, version),
    CHECK ((status = 'canceled') = (canceled_at IS NOT NULL)),
    CHECK (billed_by = 'octroi' OR provider = 'stripe')
);

CREATE UNIQUE INDEX subscription_live_once_an_account ON subscription (account_id) WHERE status <> 'canceled';

CREATE INDEX subscription_period_to_roll ON subscription (period_end_at) WHERE status <> 'canceled';

-- Periods tile the time line: each begins where the one before ends, which the reference keeps.
CREATE TABLE billing_period (
    subscription_id uuid NOT NULL,
    account_id      text NOT NULL,
    number          integer NOT NULL CHECK (number >= 1),
    start_at        timestamptz NOT NULL,
    end_at          timestamptz NOT NULL,
    previous_end_at timestamptz,
    PRIMARY KEY (subscription_id, number),
    UNIQUE (subscription_id, start_at),
    UNIQUE (subscription_id, end_at),
    FOREIGN KEY (subscription_id, account_id) REFERENCES subscription (id, account_id),
    FOREIGN KEY (subscription_id, previous_end_at) REFERENCES billing_period (subscription_id, end_at),
    CHECK (start_at < end_at),
    CHECK ((number = 1) = (previous_end_at IS NULL)),
    CHECK (previous_end_at IS NULL OR previous_end_at = start_at)
);

-- The newest period must exist; both rows are written in one transaction.
ALTER TABLE subscription ADD CONSTRAINT subscription_has_its_newest_period
    FOREIGN KEY (id, period_end_at) REFERENCES billing_period (subscription_id, end_at) DEFERRABLE INITIALLY DEFERRED;

-- The version of an account's entitlements, and the one that the quota service took.
CREATE TABLE entitlement (
    account_id      text PRIMARY KEY,
    subscription_id uuid NOT NULL,
    version         bigint NOT NULL CHECK (version >= 1),
    stage           text NOT NULL CHECK (stage IN ('current', 'grace', 'restricted', 'read_only', 'suspended')),
    version_pushed  bigint NOT NULL DEFAULT 0 CHECK (version_pushed BETWEEN 0 AND version),
    -- Nobody else pushes before this.
    push_at         timestamptz NOT NULL,
    push_tries      integer NOT NULL DEFAULT 0 CHECK (push_tries >= 0),
    FOREIGN KEY (subscription_id, account_id) REFERENCES subscription (id, account_id)
);

CREATE INDEX entitlement_to_push ON entitlement (push_at) WHERE version_pushed < version;

-- What a request id stands for; unique per account and calling service.
CREATE TABLE request (
    account_id   text NOT NULL,
    caller       text NOT NULL,
    request_id   text NOT NULL,
    method       text NOT NULL,
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    -- What the request made.
    subject_id   uuid NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, caller, request_id)
);

CREATE TABLE payment_customer (
    id                   uuid PRIMARY KEY,
    account_id           text NOT NULL,
    provider             text NOT NULL CHECK (provider IN ('manual', 'stripe')),
    -- None until the provider has answered; the row comes first, and the call's idempotency key from its id.
    provider_customer_id text,
    created_at           timestamptz NOT NULL,
    UNIQUE (account_id, provider),
    UNIQUE (provider, provider_customer_id)
);

ALTER TABLE subscription ENABLE ROW LEVEL SECURITY;
ALTER TABLE subscription FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON subscription
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE billing_period ENABLE ROW LEVEL SECURITY;
ALTER TABLE billing_period FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON billing_period
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE entitlement ENABLE ROW LEVEL SECURITY;
ALTER TABLE entitlement FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON entitlement
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE request ENABLE ROW LEVEL SECURITY;
ALTER TABLE request FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON request
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE payment_customer ENABLE ROW LEVEL SECURITY;
ALTER TABLE payment_customer FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON payment_customer
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));
