-- +goose Up
CREATE TABLE upgrades (
    id TEXT PRIMARY KEY,
    target TEXT NOT NULL,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    proposed_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    next_at INTEGER,
    expires_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    bundle_digest TEXT NOT NULL,
    patch TEXT NOT NULL,
    decision_case TEXT NOT NULL,
    ratify_by INTEGER,
    rollback_id TEXT NOT NULL,
    ratifying TEXT NOT NULL,
    version INTEGER NOT NULL,
    intent TEXT NOT NULL,
    search TEXT NOT NULL, -- what a search looks in, in lower case
    claimed_by TEXT,
    claimed_until INTEGER
) STRICT;
CREATE INDEX upgrades_due ON upgrades (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX upgrades_of_patch ON upgrades (patch);
CREATE INDEX upgrades_in_state ON upgrades (state, created_at DESC, id);
CREATE INDEX upgrades_at_target ON upgrades (target, created_at DESC, id);
CREATE INDEX upgrades_claimed ON upgrades (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX upgrades_listed ON upgrades (created_at DESC, id);

CREATE TABLE targets (
    name TEXT PRIMARY KEY,
    live TEXT NOT NULL,
    live_upgrade TEXT NOT NULL,
    applying TEXT NOT NULL,
    emergencies TEXT NOT NULL -- ids, with spaces between
) STRICT;

-- What was applied, by target, calendar month (UTC) and currency.
CREATE TABLE spending (
    target TEXT NOT NULL,
    month TEXT NOT NULL,
    currency TEXT NOT NULL,
    minor_units INTEGER NOT NULL,
    PRIMARY KEY (target, month, currency)
) STRICT;

CREATE TABLE records (
    digest TEXT PRIMARY KEY,
    seq INTEGER NOT NULL UNIQUE,
    upgrade_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    person TEXT NOT NULL,
    signed_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    patch TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX records_of_upgrade ON records (upgrade_id, seq);
CREATE INDEX records_of_person ON records (person, seq);
CREATE INDEX records_of_patch ON records (patch, seq) WHERE patch <> '';

CREATE TABLE registry (
    version INTEGER PRIMARY KEY,
    document BLOB NOT NULL,
    statement BLOB NOT NULL
) STRICT;

CREATE TABLE suspensions (
    digest TEXT PRIMARY KEY,
    registry_digest TEXT NOT NULL,
    seq INTEGER NOT NULL UNIQUE,
    envelope BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    hash TEXT NOT NULL,
    upgrade_id TEXT NOT NULL,
    leaf BLOB NOT NULL
) STRICT;
CREATE INDEX events_of_upgrade ON events (upgrade_id, seq) WHERE upgrade_id <> '';

-- The stored hashes of the RFC 6962 tree, in the order of golang.org/x/mod/sumdb/tlog.
CREATE TABLE tree (
    idx INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL
) STRICT;

-- What witnesses added to checkpoints: the lines of the policy in force then.
CREATE TABLE cosigned (
    size INTEGER NOT NULL,
    witness TEXT NOT NULL, -- its key's name and hash
    line TEXT NOT NULL,
    PRIMARY KEY (size, witness)
) STRICT;

-- How far each follower of the log (bus, notifications) has come.
CREATE TABLE cursors (
    follower TEXT PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT;

-- Who may sign in to CommandPad, and what their cookies and links stand for.
CREATE TABLE accounts (
    person TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    passkeys BLOB NOT NULL
) STRICT;
CREATE TABLE secrets (
    hash TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    person TEXT NOT NULL,
    body BLOB NOT NULL,
    until INTEGER NOT NULL
) STRICT;

-- What was accepted stays as it is. A REPLACE deletes without asking a DELETE
-- trigger, so each table also refuses an INSERT of a key that it has.
-- +goose StatementBegin
CREATE TRIGGER records_insert BEFORE INSERT ON records WHEN EXISTS (SELECT 1 FROM records WHERE digest = NEW.digest OR seq = NEW.seq) BEGIN SELECT RAISE(ABORT, 'records is append-only'); END;
CREATE TRIGGER records_update BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'records is append-only'); END;
CREATE TRIGGER records_delete BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'records is append-only'); END;
CREATE TRIGGER registry_insert BEFORE INSERT ON registry WHEN EXISTS (SELECT 1 FROM registry WHERE version = NEW.version) BEGIN SELECT RAISE(ABORT, 'registry is append-only'); END;
CREATE TRIGGER registry_update BEFORE UPDATE ON registry BEGIN SELECT RAISE(ABORT, 'registry is append-only'); END;
CREATE TRIGGER registry_delete BEFORE DELETE ON registry BEGIN SELECT RAISE(ABORT, 'registry is append-only'); END;
CREATE TRIGGER suspensions_insert BEFORE INSERT ON suspensions WHEN EXISTS (SELECT 1 FROM suspensions WHERE digest = NEW.digest OR seq = NEW.seq) BEGIN SELECT RAISE(ABORT, 'suspensions is append-only'); END;
CREATE TRIGGER suspensions_update BEFORE UPDATE ON suspensions BEGIN SELECT RAISE(ABORT, 'suspensions is append-only'); END;
CREATE TRIGGER suspensions_delete BEFORE DELETE ON suspensions BEGIN SELECT RAISE(ABORT, 'suspensions is append-only'); END;
CREATE TRIGGER events_insert BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq) BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER tree_insert BEFORE INSERT ON tree WHEN EXISTS (SELECT 1 FROM tree WHERE idx = NEW.idx) BEGIN SELECT RAISE(ABORT, 'tree is append-only'); END;
CREATE TRIGGER tree_update BEFORE UPDATE ON tree BEGIN SELECT RAISE(ABORT, 'tree is append-only'); END;
CREATE TRIGGER tree_delete BEFORE DELETE ON tree BEGIN SELECT RAISE(ABORT, 'tree is append-only'); END;
CREATE TRIGGER checkpoints_insert BEFORE INSERT ON checkpoints WHEN EXISTS (SELECT 1 FROM checkpoints WHERE size = NEW.size) BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only'); END;
CREATE TRIGGER checkpoints_update BEFORE UPDATE ON checkpoints BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only'); END;
CREATE TRIGGER checkpoints_delete BEFORE DELETE ON checkpoints BEGIN SELECT RAISE(ABORT, 'checkpoints is append-only'); END;
CREATE TRIGGER cosigned_insert BEFORE INSERT ON cosigned WHEN EXISTS (SELECT 1 FROM cosigned WHERE size = NEW.size AND witness = NEW.witness) BEGIN SELECT RAISE(ABORT, 'cosigned is append-only'); END;
CREATE TRIGGER cosigned_update BEFORE UPDATE ON cosigned BEGIN SELECT RAISE(ABORT, 'cosigned is append-only'); END;
CREATE TRIGGER cosigned_delete BEFORE DELETE ON cosigned BEGIN SELECT RAISE(ABORT, 'cosigned is append-only'); END;
-- +goose StatementEnd
