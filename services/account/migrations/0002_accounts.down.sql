DROP TABLE audit_entry;
DROP TABLE account_settings;
DROP TABLE account;
