//! The one rule of writing a run's row that every backend shares: what is present replaces, what is absent stays.

use crate::event::RunRow;

/// Puts the columns that `change` has into `row`.
pub fn apply(change: &RunRow, row: &mut RunRow) {
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
        last_event_time
    );
    if !change.tags.is_empty() {
        row.tags.clone_from(&change.tags);
    }
}
