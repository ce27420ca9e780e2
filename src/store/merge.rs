//! How all backends update runs and datasets: present columns replace, absent columns keep the stored value. One exception: a
//! restarted run has no end, so `restarted_at` clears an `end_time` that the change does not carry.

use crate::event::{DatasetRow, RunRow};

/// Applies the present columns of `change` to `row`.
pub fn apply(change: &RunRow, row: &mut RunRow) {
    if change.restarted_at.is_some() {
        (row.end_time, row.duration_seconds) = (None, None);
    }
    macro_rules! replace {
        ($($column:ident),+) => { $( if change.$column.is_some() { row.$column.clone_from(&change.$column); } )+ };
    }
    replace!(
        run_name,
        start_time,
        end_time,
        duration_seconds,
        status,
        dataset_name,
        dataset_size,
        config_json,
        final_epoch,
        final_train_loss,
        final_train_accuracy,
        final_val_loss,
        final_val_accuracy,
        best_val_accuracy,
        best_epoch,
        total_hidden_units,
        total_parameters,
        notes,
        created_by,
        last_event_time,
        restarted_at
    );
    if !change.tags.is_empty() {
        row.tags.clone_from(&change.tags);
    }
}

/// Applies the present columns of `change` to a dataset.
pub fn apply_dataset(change: &DatasetRow, row: &mut DatasetRow) {
    macro_rules! replace {
        ($($column:ident),+) => { $( if change.$column.is_some() { row.$column.clone_from(&change.$column); } )+ };
    }
    replace!(name, description, num_samples, num_features, num_classes, created_at, file_path, checksum);
    if !change.class_distribution.is_empty() {
        row.class_distribution.clone_from(&change.class_distribution);
    }
}
