DROP TRIGGER rollup_lag_day_update ON rollup_day;
DROP TRIGGER rollup_lag_day_insert ON rollup_day;
DROP TRIGGER rollup_lag_ledger_delete ON usage_event;
DROP TRIGGER rollup_lag_ledger_insert ON usage_event;
DROP FUNCTION keep_rollup_lag();
DROP TABLE rollup_lag;
