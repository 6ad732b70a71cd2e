-- +goose Up
-- Texts are compared byte by byte, as SQLite does, whatever the database's locale.
CREATE TABLE upgrades (
    id TEXT COLLATE "C" PRIMARY KEY,
    target TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    manifest_digest TEXT COLLATE "C" NOT NULL,
    proposed_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    next_at BIGINT,
    expires_at BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    bundle_digest TEXT COLLATE "C" NOT NULL,
    patch TEXT COLLATE "C" NOT NULL,
    decision_case TEXT COLLATE "C" NOT NULL,
    ratify_by BIGINT,
    rollback_id TEXT COLLATE "C" NOT NULL,
    ratifying TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    intent TEXT COLLATE "C" NOT NULL,
    search TEXT COLLATE "C" NOT NULL, -- what a search looks in, in lower case
    claimed_by TEXT COLLATE "C",
    claimed_until BIGINT
);
CREATE INDEX upgrades_due ON upgrades (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX upgrades_of_patch ON upgrades (patch);
CREATE INDEX upgrades_in_state ON upgrades (state, created_at DESC, id);
CREATE INDEX upgrades_at_target ON upgrades (target, created_at DESC, id);
CREATE INDEX upgrades_claimed ON upgrades (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX upgrades_listed ON upgrades (created_at DESC, id);

CREATE TABLE targets (
    name TEXT COLLATE "C" PRIMARY KEY,
    live TEXT COLLATE "C" NOT NULL,
    live_upgrade TEXT COLLATE "C" NOT NULL,
    applying TEXT COLLATE "C" NOT NULL,
    emergencies TEXT COLLATE "C" NOT NULL -- ids, with spaces between
);

-- What was applied, by target, calendar month (UTC) and currency.
CREATE TABLE spending (
    target TEXT COLLATE "C" NOT NULL,
    month TEXT COLLATE "C" NOT NULL,
    currency TEXT COLLATE "C" NOT NULL,
    minor_units BIGINT NOT NULL,
    PRIMARY KEY (target, month, currency)
);

CREATE TABLE records (
    digest TEXT COLLATE "C" PRIMARY KEY,
    seq BIGINT NOT NULL UNIQUE,
    upgrade_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    person TEXT COLLATE "C" NOT NULL,
    signed_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    patch TEXT COLLATE "C" NOT NULL,
    body BYTEA NOT NULL
);
CREATE INDEX records_of_upgrade ON records (upgrade_id, seq);
CREATE INDEX records_of_person ON records (person, seq);
CREATE INDEX records_of_patch ON records (patch, seq) WHERE patch <> '';

CREATE TABLE registry (
    version BIGINT PRIMARY KEY,
    document BYTEA NOT NULL,
    statement BYTEA NOT NULL
);

CREATE TABLE suspensions (
    digest TEXT COLLATE "C" PRIMARY KEY,
    registry_digest TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL UNIQUE,
    envelope BYTEA NOT NULL
);

CREATE TABLE events (
    seq BIGINT PRIMARY KEY,
    hash TEXT COLLATE "C" NOT NULL,
    upgrade_id TEXT COLLATE "C" NOT NULL,
    leaf BYTEA NOT NULL
);
CREATE INDEX events_of_upgrade ON events (upgrade_id, seq) WHERE upgrade_id <> '';

-- The stored hashes of the RFC 6962 tree, in the order of golang.org/x/mod/sumdb/tlog.
CREATE TABLE tree (
    idx BIGINT PRIMARY KEY,
    hash BYTEA NOT NULL
);

CREATE TABLE checkpoints (
    size BIGINT PRIMARY KEY,
    note TEXT COLLATE "C" NOT NULL
);

-- What witnesses added to checkpoints: the lines of the policy in force then.
CREATE TABLE cosigned (
    size BIGINT NOT NULL,
    witness TEXT COLLATE "C" NOT NULL, -- its key's name and hash
    line TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (size, witness)
);

-- How far each follower of the log (bus, notifications) has come.
CREATE TABLE cursors (
    follower TEXT COLLATE "C" PRIMARY KEY,
    next BIGINT NOT NULL
);

-- Who may sign in to CommandPad, and what their cookies and links stand for.
CREATE TABLE accounts (
    person TEXT COLLATE "C" PRIMARY KEY,
    role TEXT COLLATE "C" NOT NULL,
    passkeys BYTEA NOT NULL
);
CREATE TABLE secrets (
    hash TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL,
    person TEXT COLLATE "C" NOT NULL,
    body BYTEA NOT NULL,
    until BIGINT NOT NULL
);

-- Each gateway's last transaction, by which it finds out whether one was
-- committed whose answer was lost. Of this database alone: it is not copied.
CREATE TABLE writers (
    id TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL,
    at BIGINT NOT NULL
);

-- What was accepted stays as it is, also for a session that replicates.
-- +goose StatementBegin
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON records FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON registry FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON suspensions FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON tree FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoints FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON cosigned FOR EACH STATEMENT EXECUTE FUNCTION append_only();
ALTER TABLE records ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE registry ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE suspensions ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE events ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE tree ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE checkpoints ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE cosigned ENABLE ALWAYS TRIGGER append_only;
