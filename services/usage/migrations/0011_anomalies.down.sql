DROP TABLE anomaly_look;
DROP TABLE anomaly;
