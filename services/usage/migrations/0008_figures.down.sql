DROP TABLE rollup_distinct;
ALTER TABLE rollup_day DROP COLUMN max_amount, DROP COLUMN latest_at, DROP COLUMN latest_amount;
ALTER TABLE rollup_quarter DROP COLUMN max_amount, DROP COLUMN latest_at, DROP COLUMN latest_amount;
DROP TABLE distinct_salt;
ALTER TABLE metric DROP COLUMN property;
