-- Version 2: when a run started again, and the names of its other numbers.

ALTER TABLE training_runs ADD COLUMN restarted_at INTEGER;

-- Every name in `extra` of a run's metrics, at most 4,096 a run. Kept as long as the run's row: neither expires.
CREATE TABLE run_metric_names (
    run_id TEXT NOT NULL,
    name   TEXT NOT NULL,
    PRIMARY KEY (run_id, name)
) WITHOUT ROWID;
