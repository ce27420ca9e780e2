-- Version 4: what people changed of a run, and which runs they deleted.

-- Reads lay it over the run's row. Only people write it (HTTP, command line); no message of a trainer changes it.
CREATE TABLE run_edits (
    run_id       TEXT    NOT NULL PRIMARY KEY,
    display_name TEXT,
    notes        TEXT,
    add_tags     TEXT,
    remove_tags  TEXT,
    archived     INTEGER,
    edited_at    INTEGER NOT NULL,
    edited_by    TEXT
);
CREATE INDEX run_edits_display_name ON run_edits (display_name) WHERE display_name IS NOT NULL;

-- Records of such a run that were received at or before deleted_at are not written. Kept 90 days.
CREATE TABLE run_deletions (
    run_id     TEXT    NOT NULL PRIMARY KEY,
    deleted_at INTEGER NOT NULL,
    deleted_by TEXT,
    expires_at INTEGER
);
CREATE INDEX run_deletions_expires ON run_deletions (expires_at) WHERE expires_at IS NOT NULL;
