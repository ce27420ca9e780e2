-- Version 5: which runs changed last.
--
-- A reader that remembers the order of all runs reads again only those that are named here. Each change of a run's row, or of what
-- people changed of it, appends an entry, whoever makes the change; the daemon removes old entries.
CREATE TABLE run_changes (
    number INTEGER NOT NULL PRIMARY KEY,
    run_id TEXT    NOT NULL
);

CREATE TRIGGER training_runs_inserted AFTER INSERT ON training_runs
BEGIN INSERT INTO run_changes (run_id) VALUES (NEW.run_id); END;
CREATE TRIGGER training_runs_updated AFTER UPDATE ON training_runs
BEGIN INSERT INTO run_changes (run_id) VALUES (OLD.run_id), (NEW.run_id); END;
CREATE TRIGGER training_runs_deleted AFTER DELETE ON training_runs
BEGIN INSERT INTO run_changes (run_id) VALUES (OLD.run_id); END;

CREATE TRIGGER run_edits_inserted AFTER INSERT ON run_edits
BEGIN INSERT INTO run_changes (run_id) VALUES (NEW.run_id); END;
CREATE TRIGGER run_edits_updated AFTER UPDATE ON run_edits
BEGIN INSERT INTO run_changes (run_id) VALUES (OLD.run_id), (NEW.run_id); END;
CREATE TRIGGER run_edits_deleted AFTER DELETE ON run_edits
BEGIN INSERT INTO run_changes (run_id) VALUES (OLD.run_id); END;
