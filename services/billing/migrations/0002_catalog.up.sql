-- What is on offer. A plan version, once written, never changes: subscribers keep theirs. Metrics, features
-- and plans stay for ever, so that what was sold stays readable; a position says that the newest catalog
-- still lists them.

CREATE TABLE catalog_version (
    version            bigint PRIMARY KEY CHECK (version >= 1),
    document           text NOT NULL,
    currencies         text[] NOT NULL CHECK (cardinality(currencies) >= 1),
    default_plan       text NOT NULL,
    restricted_percent integer NOT NULL CHECK (restricted_percent BETWEEN 0 AND 100),
    applied_at         timestamptz NOT NULL
);

CREATE TABLE dunning_step (
    catalog_version bigint NOT NULL REFERENCES catalog_version,
    after_days      integer NOT NULL CHECK (after_days BETWEEN 0 AND 365),
    stage           text NOT NULL CHECK (stage IN ('grace', 'restricted', 'read_only', 'suspended')),
    PRIMARY KEY (catalog_version, after_days),
    UNIQUE (catalog_version, stage)
);

CREATE TABLE metric (
    slug            text PRIMARY KEY CHECK (slug ~ '^[a-z0-9_.-]{1,64}$'),
    kind            text NOT NULL CHECK (kind IN ('flow', 'level')),
    aggregation     text NOT NULL CHECK (aggregation IN ('sum', 'count', 'max', 'unique', 'latest')),
    display_name_en text NOT NULL,
    display_name_fr text NOT NULL,
    unit            text NOT NULL,
    write           boolean NOT NULL,
    position        integer NOT NULL CHECK (position >= 0)
);

CREATE TABLE feature (
    slug            text PRIMARY KEY CHECK (slug ~ '^[a-z0-9_.-]{1,64}$'),
    display_name_en text NOT NULL,
    display_name_fr text NOT NULL,
    position        integer CHECK (position >= 0)
);

CREATE TABLE plan (
    slug           text PRIMARY KEY CHECK (slug ~ '^[a-z0-9_.-]{1,64}$'),
    version_newest integer NOT NULL CHECK (version_newest >= 1),
    position       integer CHECK (position >= 0)
);

CREATE TABLE plan_version (
    plan             text NOT NULL REFERENCES plan (slug),
    version          integer NOT NULL CHECK (version >= 1),
    catalog_version  bigint NOT NULL REFERENCES catalog_version,
    display_name_en  text NOT NULL,
    display_name_fr  text NOT NULL,
    currency         char(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    billing_interval text NOT NULL CHECK (billing_interval IN ('month', 'year')),
    public           boolean NOT NULL,
    PRIMARY KEY (plan, version)
);

-- The newest version must exist; both rows are written in one transaction.
ALTER TABLE plan ADD CONSTRAINT plan_has_its_newest_version
    FOREIGN KEY (slug, version_newest) REFERENCES plan_version (plan, version) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE catalog_version ADD CONSTRAINT catalog_has_its_default_plan
    FOREIGN KEY (default_plan) REFERENCES plan (slug) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE price (
    plan              text NOT NULL,
    plan_version      integer NOT NULL,
    position          integer NOT NULL CHECK (position >= 0),
    model             text NOT NULL CHECK (model IN ('flat', 'per_unit', 'graduated', 'volume', 'package')),
    metric            text REFERENCES metric (slug),
    flat_amount_minor bigint CHECK (flat_amount_minor >= 0),
    -- Minor units; the fraction becomes whole once, at the invoice line.
    unit_amount       numeric(21, 12) CHECK (unit_amount >= 0),
    included_units    bigint NOT NULL DEFAULT 0 CHECK (included_units BETWEEN 0 AND 9007199254740991),
    package_units     bigint CHECK (package_units BETWEEN 1 AND 9007199254740991),
    PRIMARY KEY (plan, plan_version, position),
    UNIQUE (plan, plan_version, metric),
    FOREIGN KEY (plan, plan_version) REFERENCES plan_version (plan, version),
    CHECK ((model = 'flat') = (metric IS NULL)),
    CHECK ((model = 'flat') = (flat_amount_minor IS NOT NULL)),
    CHECK ((model IN ('per_unit', 'package')) = (unit_amount IS NOT NULL)),
    CHECK ((model = 'package') = (package_units IS NOT NULL)),
    CHECK (model <> 'flat' OR included_units = 0)
);

CREATE TABLE price_tier (
    plan              text NOT NULL,
    plan_version      integer NOT NULL,
    price_position    integer NOT NULL,
    position          integer NOT NULL CHECK (position >= 0),
    -- The last unit of the step; none means without end.
    up_to             bigint CHECK (up_to BETWEEN 1 AND 9007199254740991),
    unit_amount       numeric(21, 12) NOT NULL CHECK (unit_amount >= 0),
    flat_amount_minor bigint NOT NULL CHECK (flat_amount_minor >= 0),
    PRIMARY KEY (plan, plan_version, price_position, position),
    FOREIGN KEY (plan, plan_version, price_position) REFERENCES price (plan, plan_version, position)
);

CREATE TABLE limit_template (
    plan               text NOT NULL,
    plan_version       integer NOT NULL,
    metric             text NOT NULL REFERENCES metric (slug),
    period             text NOT NULL CHECK (period IN ('hour', 'day', 'month', 'lifetime')),
    amount             bigint NOT NULL CHECK (amount BETWEEN 0 AND 9007199254740991),
    mode               text NOT NULL CHECK (mode IN ('hard', 'soft', 'shadow')),
    ceiling            bigint CHECK (ceiling BETWEEN 0 AND 9007199254740991),
    unreachable_policy text NOT NULL CHECK (unreachable_policy IN ('deny', 'lease', 'allow')),
    thresholds         integer[] NOT NULL CHECK (cardinality(thresholds) BETWEEN 1 AND 10),
    PRIMARY KEY (plan, plan_version, metric, period),
    FOREIGN KEY (plan, plan_version) REFERENCES plan_version (plan, version),
    CHECK (ceiling IS NULL OR (mode = 'soft' AND ceiling >= amount)),
    CHECK (mode <> 'hard' OR unreachable_policy <> 'allow')
);

CREATE TABLE plan_feature (
    plan         text NOT NULL,
    plan_version integer NOT NULL,
    feature      text NOT NULL REFERENCES feature (slug),
    PRIMARY KEY (plan, plan_version, feature),
    FOREIGN KEY (plan, plan_version) REFERENCES plan_version (plan, version)
);

-- The newest catalog that each service took.
CREATE TABLE catalog_push (
    service          text PRIMARY KEY CHECK (service IN ('quota', 'usage')),
    version_accepted bigint NOT NULL CHECK (version_accepted >= 0)
);

INSERT INTO catalog_push (service, version_accepted) VALUES ('quota', 0), ('usage', 0);
