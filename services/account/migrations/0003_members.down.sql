DROP TABLE sign_in_throttle;
DROP TABLE session;
DROP TABLE password;
DROP TABLE member;
