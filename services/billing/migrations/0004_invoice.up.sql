-- Invoices. A draft may change; a finalized invoice never does, which triggers keep besides the code.

CREATE TABLE invoice (
    id               uuid PRIMARY KEY,
    account_id       text NOT NULL,
    subscription_id  uuid NOT NULL,
    -- Given when it is finalized.
    number           text UNIQUE,
    reason           text NOT NULL CHECK (reason IN ('period', 'plan_change', 'cancellation')),
    period_start_at  timestamptz NOT NULL,
    period_end_at    timestamptz NOT NULL,
    status           text NOT NULL CHECK (status IN ('draft', 'finalized', 'paid', 'uncollectible', 'voided')),
    currency         char(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    total_minor      bigint NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL,
    finalized_at     timestamptz,
    due_at           timestamptz,
    paid_at          timestamptz,
    voided_at        timestamptz,
    UNIQUE (id, account_id),
    FOREIGN KEY (subscription_id, account_id) REFERENCES subscription (id, account_id),
    CHECK (period_start_at < period_end_at),
    CHECK ((status = 'draft') = (number IS NULL)),
    CHECK ((status = 'draft') = (finalized_at IS NULL)),
    CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
    CHECK ((status = 'voided') = (voided_at IS NOT NULL)),
    CHECK (due_at IS NULL OR due_at >= finalized_at)
);

CREATE UNIQUE INDEX invoice_once_a_period_and_reason
    ON invoice (subscription_id, period_start_at, reason) WHERE status <> 'voided';

CREATE TABLE invoice_line (
    invoice_id   uuid NOT NULL,
    account_id   text NOT NULL,
    position     integer NOT NULL CHECK (position >= 0),
    description  text NOT NULL,
    -- None for a fixed amount.
    metric       text REFERENCES metric (slug),
    quantity     bigint NOT NULL CHECK (quantity BETWEEN 0 AND 9007199254740991),
    -- Rounded once, half-up; negative for a credit.
    amount_minor bigint NOT NULL,
    PRIMARY KEY (invoice_id, position),
    FOREIGN KEY (invoice_id, account_id) REFERENCES invoice (id, account_id) ON DELETE CASCADE
);

CREATE FUNCTION invoice_keeps_its_rules() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- What may still be written once it is finalized.
    standing CONSTANT text[] := ARRAY['status', 'paid_at', 'voided_at'];
    lines_minor numeric;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.status <> 'draft' THEN
            RAISE EXCEPTION 'a finalized invoice is not deleted' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'draft' THEN
            RAISE EXCEPTION 'an invoice begins as a draft' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.status <> 'draft' AND to_jsonb(NEW) - standing IS DISTINCT FROM to_jsonb(OLD) - standing THEN
        RAISE EXCEPTION 'a finalized invoice never changes' USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('draft', 'finalized'),
        ('finalized', 'paid'), ('finalized', 'uncollectible'), ('finalized', 'voided'),
        ('uncollectible', 'paid'), ('uncollectible', 'voided')
    ) THEN
        RAISE EXCEPTION 'an invoice does not go from % to %', OLD.status, NEW.status USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.status = 'draft' AND NEW.status = 'finalized' THEN
        SELECT coalesce(sum(amount_minor), 0) INTO lines_minor FROM invoice_line WHERE invoice_id = NEW.id;
        IF lines_minor <> NEW.total_minor THEN
            RAISE EXCEPTION 'the lines of an invoice sum to its total' USING ERRCODE = 'restrict_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER invoice_keeps_its_rules BEFORE INSERT OR UPDATE OR DELETE ON invoice
    FOR EACH ROW EXECUTE FUNCTION invoice_keeps_its_rules();

CREATE FUNCTION invoice_line_keeps_its_rules() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    invoice_status text;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.invoice_id <> OLD.invoice_id THEN
        RAISE EXCEPTION 'a line stays with its invoice' USING ERRCODE = 'restrict_violation';
    END IF;
    -- Locked, so that the invoice is not finalized in the meantime.
    IF TG_OP = 'INSERT' THEN
        SELECT status INTO invoice_status FROM invoice WHERE id = NEW.invoice_id FOR SHARE;
    ELSE
        SELECT status INTO invoice_status FROM invoice WHERE id = OLD.invoice_id FOR SHARE;
    END IF;
    -- A draft that is being deleted takes its lines along, and is not seen any more.
    IF invoice_status <> 'draft' THEN
        RAISE EXCEPTION 'a finalized invoice never changes' USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER invoice_line_keeps_its_rules BEFORE INSERT OR UPDATE OR DELETE ON invoice_line
    FOR EACH ROW EXECUTE FUNCTION invoice_line_keeps_its_rules();

ALTER TABLE invoice ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoice FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON invoice
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));

ALTER TABLE invoice_line ENABLE ROW LEVEL SECURITY;
ALTER TABLE invoice_line FORCE ROW LEVEL SECURITY;
CREATE POLICY account_scope ON invoice_line
    USING (current_setting('octroi.account_id', true) IN (account_id, '*'))
    WITH CHECK (current_setting('octroi.account_id', true) IN (account_id, '*'));
