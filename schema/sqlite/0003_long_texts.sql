-- Version 3: long texts of metrics rows lie in a table of their own.
--
-- A search in the key's tree reads each row that it compares, whole: one row of megabytes made every later insert beside it read
-- those megabytes again. A text beyond 4 KiB (or an empty one) is '' in the tree, and lies below in full. Both tables are one for
-- readers: the view. To delete rows by hand, delete them from both tables.
--
-- Rows that are there already stay as they are until they are written again or expire: to look for long ones would take as long
-- as to read the whole table.

-- Views that people made of training_metrics go on reading whole texts: they mean the new view, not the renamed table.
PRAGMA legacy_alter_table = ON;
ALTER TABLE training_metrics RENAME TO training_metrics_rows;
PRAGMA legacy_alter_table = OFF;

-- Kept out of the key's tree, like network_topology.
CREATE TABLE training_metrics_long (
    run_id     TEXT    NOT NULL,
    timestamp  INTEGER NOT NULL,
    event_id   INTEGER NOT NULL,
    extra      TEXT,
    rest_json  TEXT,
    expires_at INTEGER,
    PRIMARY KEY (run_id, timestamp, event_id)
);
CREATE INDEX training_metrics_long_expires ON training_metrics_long (expires_at) WHERE expires_at IS NOT NULL;

CREATE VIEW training_metrics AS
SELECT run_id, timestamp, event_id, epoch, step, train_loss, train_accuracy, val_loss, val_accuracy, learning_rate,
    hidden_units, phase, seq,
    CASE extra WHEN '' THEN (SELECT l.extra FROM training_metrics_long l
        WHERE l.run_id = r.run_id AND l.timestamp = r.timestamp AND l.event_id = r.event_id) ELSE extra END AS extra,
    CASE rest_json WHEN '' THEN (SELECT l.rest_json FROM training_metrics_long l
        WHERE l.run_id = r.run_id AND l.timestamp = r.timestamp AND l.event_id = r.event_id) ELSE rest_json END AS rest_json,
    non_finite, expires_at
FROM training_metrics_rows r;
