-- What every service has: events that leave, events that arrived, events that nobody could handle.
CREATE TABLE outbox (
    sequence      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            uuid NOT NULL UNIQUE,
    routing_key   text NOT NULL,
    payload       bytea NOT NULL,
    traceparent   text,
    occurred_at   timestamptz NOT NULL,
    claimed_until timestamptz,
    tries         integer NOT NULL DEFAULT 0
);

CREATE TABLE inbox (
    consumer   text NOT NULL,
    message_id uuid NOT NULL,
    taken_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);

CREATE TABLE dead_letter (
    queue       text NOT NULL,
    message_id  uuid NOT NULL,
    routing_key text NOT NULL,
    payload     bytea NOT NULL,
    traceparent text,
    occurred_at timestamptz NOT NULL,
    reason      text NOT NULL,
    attempts    integer NOT NULL,
    error       text NOT NULL,
    kept_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, message_id)
);
