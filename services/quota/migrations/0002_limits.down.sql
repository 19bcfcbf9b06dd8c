DROP TABLE crossed_threshold;
DROP TABLE quota_window;
DROP TABLE entitlement;
DROP TABLE metric;
DROP TABLE catalog;
