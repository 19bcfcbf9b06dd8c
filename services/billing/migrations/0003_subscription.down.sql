DROP TABLE payment_customer;
DROP TABLE request;
DROP TABLE entitlement;
ALTER TABLE subscription DROP CONSTRAINT subscription_has_its_newest_period;
DROP TABLE billing_period;
DROP TABLE subscription;
