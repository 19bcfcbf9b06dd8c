-- The ledger in months, and beside it the keys that make an event count once (docs/decisions/0009-event-keys.md).
--
-- `usage_event` stays for as long as programs of the version before run: what they write into it is copied into the new
-- ledger by a trigger. A later version drops it.

-- One row an event that was recorded, or denied. The key is the first 16 bytes of the SHA-256 over account, source and
-- event id, each after its length; the payload's hash is cut in the same way. A key lives at least as long as the month
-- of its event in the ledger.
CREATE TABLE event_key (
    key          uuid NOT NULL PRIMARY KEY,
    payload_hash uuid NOT NULL,
    -- Where the ledger has the event: its month.
    event_at     timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    -- It stands for a request that was denied: the ledger has no row of it.
    denied       boolean NOT NULL
) PARTITION BY HASH (key);

DO $$
BEGIN
    FOR place IN 0..7 LOOP
        EXECUTE format('CREATE TABLE event_key_%s PARTITION OF event_key FOR VALUES WITH (MODULUS 8, REMAINDER %s)', place, place);
    END LOOP;
END
$$;

CREATE FUNCTION event_key_of(account_id text, source text, event_id text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(substring(sha256(
               int8send(octet_length(account_id)) || convert_to(account_id, 'UTF8')
               || int8send(octet_length(source)) || convert_to(source, 'UTF8')
               || int8send(octet_length(event_id)) || convert_to(event_id, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid
$$;

-- Each session takes some numbers at a time, so an event of another session may have a smaller one and be younger.
CREATE SEQUENCE ledger_sequence CACHE 100;

-- The ledger: one row a usage event, never changed, in months of UTC by the event's time.
CREATE TABLE ledger (
    account_id     text NOT NULL,
    metric         text NOT NULL,
    event_at       timestamptz NOT NULL,
    sequence       bigint NOT NULL DEFAULT nextval('ledger_sequence'),
    source         text NOT NULL,
    event_id       text NOT NULL,
    amount         bigint NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    -- Units that slices paid for.
    charged_amount bigint NOT NULL CHECK (charged_amount BETWEEN 0 AND amount),
    recorded_at    timestamptz NOT NULL,
    origin         text NOT NULL CHECK (origin IN ('direct', 'decision', 'return')),
    backfill       boolean NOT NULL,
    properties     jsonb NOT NULL
) PARTITION BY RANGE (event_at);

CREATE INDEX ledger_by_time ON ledger (account_id, metric, event_at, sequence);

-- Nothing before this instant is recorded: the months before it are dropped, with their keys. It never goes back.
CREATE TABLE ledger_floor (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    start_at  timestamptz NOT NULL
);

INSERT INTO ledger_floor (start_at) VALUES ('0001-01-01 00:00:00+00');

-- Makes the month that begins at an instant, where it is not there, and says whether it is now: below the floor none is
-- made. It takes no lock that commits wait for; whoever raises the floor takes the same one.
CREATE FUNCTION make_ledger_month(start_at timestamptz) RETURNS boolean LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    name text := 'ledger_' || to_char(start_at AT TIME ZONE 'UTC', 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN true;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ledger_months'));
    IF start_at < (SELECT floor.start_at FROM ledger_floor AS floor) THEN
        RETURN false;
    END IF;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN true;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE ledger INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE ledger ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, start_at,
                   (start_at AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
    RETURN true;
END
$$;

-- What the programs of the version before write.
CREATE FUNCTION copy_to_ledger() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO event_key (key, payload_hash, event_at, recorded_at, denied)
    VALUES (event_key_of(NEW.account_id, NEW.source, NEW.event_id),
            encode(substring(NEW.payload_hash FROM 1 FOR 16), 'hex')::uuid, NEW.event_at, NEW.recorded_at, NEW.origin = 'denial')
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF NEW.origin <> 'denial' THEN
        PERFORM make_ledger_month(date_trunc('month', NEW.event_at, 'UTC'));
        INSERT INTO ledger (account_id, metric, event_at, source, event_id, amount, charged_amount, recorded_at, origin, backfill,
                            properties)
        VALUES (NEW.account_id, NEW.metric, NEW.event_at, NEW.source, NEW.event_id, NEW.amount, NEW.charged_amount,
                NEW.recorded_at, NEW.origin, NEW.backfill, NEW.properties);
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION delete_from_ledger() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM event_key WHERE key = event_key_of(OLD.account_id, OLD.source, OLD.event_id);
    DELETE FROM ledger
    WHERE account_id = OLD.account_id AND metric = OLD.metric AND event_at = OLD.event_at AND source = OLD.source
      AND event_id = OLD.event_id;
    RETURN NULL;
END
$$;

-- Nothing is written between the copy and the triggers.
LOCK TABLE usage_event IN SHARE ROW EXCLUSIVE MODE;

CREATE TRIGGER copy_to_ledger BEFORE INSERT ON usage_event FOR EACH ROW EXECUTE FUNCTION copy_to_ledger();
CREATE TRIGGER delete_from_ledger AFTER DELETE ON usage_event FOR EACH ROW EXECUTE FUNCTION delete_from_ledger();

INSERT INTO event_key (key, payload_hash, event_at, recorded_at, denied)
SELECT event_key_of(account_id, source, event_id), encode(substring(payload_hash FROM 1 FOR 16), 'hex')::uuid, event_at,
       recorded_at, origin = 'denial'
FROM usage_event;

SELECT make_ledger_month(start_at)
FROM (SELECT DISTINCT date_trunc('month', event_at, 'UTC') AS start_at FROM usage_event) AS months;

INSERT INTO ledger (account_id, metric, event_at, sequence, source, event_id, amount, charged_amount, recorded_at, origin, backfill,
                    properties)
SELECT account_id, metric, event_at, sequence, source, event_id, amount, charged_amount, recorded_at, origin, backfill, properties
FROM usage_event WHERE origin <> 'denial';

SELECT setval('ledger_sequence', greatest(max(sequence), 1)) FROM usage_event;
