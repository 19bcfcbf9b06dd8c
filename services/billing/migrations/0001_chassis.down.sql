DROP TABLE dead_letter;
DROP TABLE inbox;
DROP TABLE outbox;
