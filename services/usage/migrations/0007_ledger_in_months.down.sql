-- What was recorded since goes back into the one table. Half of each payload's hash was not kept: a repeat of such an event
-- is refused as another content. What was denied since is not known any more.
DROP TRIGGER copy_to_ledger ON usage_event;
DROP TRIGGER delete_from_ledger ON usage_event;
DROP TRIGGER rollup_lag_ledger_insert ON usage_event;

INSERT INTO usage_event (account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, properties,
                         payload_hash, charged_amount)
SELECT e.account_id, e.source, e.event_id, e.metric, e.amount, e.event_at, e.recorded_at, e.origin, e.backfill, e.properties,
       decode(replace(k.payload_hash::text, '-', ''), 'hex') || '\x00000000000000000000000000000000', e.charged_amount
FROM ledger AS e
JOIN event_key AS k ON k.key = event_key_of(e.account_id, e.source, e.event_id)
ORDER BY e.sequence
ON CONFLICT DO NOTHING;

-- They were counted when they were recorded.
CREATE TRIGGER rollup_lag_ledger_insert AFTER INSERT ON usage_event
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION keep_rollup_lag();

DROP FUNCTION copy_to_ledger();
DROP FUNCTION delete_from_ledger();
DROP TABLE ledger;
DROP TABLE event_key;
DROP TABLE ledger_floor;
DROP SEQUENCE ledger_sequence;
DROP FUNCTION make_ledger_month(timestamptz);
DROP FUNCTION event_key_of(text, text, text);
