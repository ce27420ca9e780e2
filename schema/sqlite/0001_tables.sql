-- The logical tables of the store. uuid: lower-case TEXT. timestamp: INTEGER, UTC microseconds since the Unix epoch.
-- Maps, sets and JSON: JSON TEXT. A NaN is NULL, and its column is named in non_finite ({"column": "NaN"}).
-- Rows past expires_at are as good as gone: they are deleted in chunks, and readers skip them until then.

-- Clustered by its key: the rows of a run lie together, in the order in which they are read. No other index: it would cost
-- as much as the row.
CREATE TABLE training_metrics (
    run_id         TEXT    NOT NULL,
    timestamp      INTEGER NOT NULL,
    event_id       INTEGER NOT NULL,
    epoch          INTEGER,
    step           INTEGER,
    train_loss     REAL,
    train_accuracy REAL,
    val_loss       REAL,
    val_accuracy   REAL,
    learning_rate  REAL,
    hidden_units   INTEGER,
    phase          TEXT,
    seq            INTEGER,
    extra          TEXT,
    rest_json      TEXT,
    non_finite     TEXT,
    expires_at     INTEGER,
    PRIMARY KEY (run_id, timestamp, event_id)
) WITHOUT ROWID;

-- Rows may be megabytes: kept out of the key's tree, so that finding one does not walk through the others.
CREATE TABLE network_topology (
    run_id           TEXT    NOT NULL,
    timestamp        INTEGER NOT NULL,
    event_id         INTEGER NOT NULL,
    epoch            INTEGER,
    input_size       INTEGER,
    output_size      INTEGER,
    hidden_units     INTEGER,
    total_parameters INTEGER,
    topology_json    TEXT    NOT NULL,
    weights_summary  TEXT,
    expires_at       INTEGER,
    PRIMARY KEY (run_id, timestamp, event_id)
);
CREATE INDEX network_topology_expires ON network_topology (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE training_events (
    run_id       TEXT    NOT NULL,
    timestamp    INTEGER NOT NULL,
    event_id     INTEGER NOT NULL,
    type         TEXT    NOT NULL,
    payload_json TEXT    NOT NULL,
    epoch        INTEGER,
    expires_at   INTEGER,
    PRIMARY KEY (run_id, timestamp, event_id)
);
CREATE INDEX training_events_expires ON training_events (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE training_runs (
    run_id               TEXT NOT NULL PRIMARY KEY,
    run_name             TEXT,
    start_time           INTEGER,
    end_time             INTEGER,
    duration_seconds     INTEGER,
    status               TEXT,
    dataset_name         TEXT,
    dataset_size         INTEGER,
    config_json          TEXT,
    final_epoch          INTEGER,
    final_train_loss     REAL,
    final_train_accuracy REAL,
    final_val_loss       REAL,
    final_val_accuracy   REAL,
    best_val_accuracy    REAL,
    best_epoch           INTEGER,
    total_hidden_units   INTEGER,
    total_parameters     INTEGER,
    notes                TEXT,
    tags                 TEXT,
    created_by           TEXT,
    last_event_time      INTEGER,
    non_finite           TEXT
);
CREATE INDEX training_runs_status ON training_runs (status);
CREATE INDEX training_runs_dataset_name ON training_runs (dataset_name);

-- The most recent runs; an entry whose start_time differs from the run's row counts for nothing.
CREATE TABLE runs_by_month (
    month      TEXT    NOT NULL,
    start_time INTEGER NOT NULL,
    run_id     TEXT    NOT NULL,
    PRIMARY KEY (month DESC, start_time DESC, run_id)
) WITHOUT ROWID;

CREATE TABLE dataset_info (
    dataset_id         TEXT NOT NULL PRIMARY KEY,
    name               TEXT,
    description        TEXT,
    num_samples        INTEGER,
    num_features       INTEGER,
    num_classes        INTEGER,
    class_distribution TEXT,
    created_at         INTEGER,
    file_path          TEXT,
    checksum           TEXT
);

CREATE TABLE control_log (
    day          TEXT    NOT NULL,
    timestamp    INTEGER NOT NULL,
    event_id     INTEGER NOT NULL,
    instance     TEXT    NOT NULL,
    command      TEXT    NOT NULL,
    command_id   TEXT,
    target       TEXT,
    source       TEXT    NOT NULL,
    outcome      TEXT,
    payload_json TEXT    NOT NULL,
    expires_at   INTEGER,
    PRIMARY KEY (day, timestamp, event_id, instance)
);
CREATE INDEX control_log_expires ON control_log (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE ingest_gaps (
    day        TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    gap_id     TEXT    NOT NULL,
    ended_at   INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    channel    TEXT,
    instance   TEXT    NOT NULL,
    run_id     TEXT,
    lost       INTEGER,
    expires_at INTEGER,
    PRIMARY KEY (day, started_at, gap_id)
);
CREATE INDEX ingest_gaps_expires ON ingest_gaps (expires_at) WHERE expires_at IS NOT NULL;
