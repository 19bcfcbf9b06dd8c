DROP TABLE rollup_day;
DROP TABLE rollup_quarter;
DROP TABLE usage_event;
DROP TABLE metric;
DROP TABLE catalog;
