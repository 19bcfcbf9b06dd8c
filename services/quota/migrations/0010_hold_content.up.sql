-- What the request of a hold asked for, hashed: the same request id with another content is refused.
ALTER TABLE slice ADD COLUMN content_hash bytea CHECK (octet_length(content_hash) = 32);
