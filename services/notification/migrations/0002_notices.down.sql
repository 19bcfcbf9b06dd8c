DROP TABLE delivery;
DROP TABLE email;
DROP TABLE mailing;
DROP TABLE notice;
