//! The contract's field names: which column a name means, and whether it is its canonical name or an alias.

use crate::event::Kind;

/// What a field of a message can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Slot {
    RunId,
    Timestamp,
    Seq,
    Epoch,
    Step,
    TrainLoss,
    TrainAccuracy,
    ValLoss,
    ValAccuracy,
    LearningRate,
    HiddenUnits,
    Phase,
    InputSize,
    OutputSize,
    TotalParameters,
    WeightsSummary,
    DatasetName,
    DatasetSize,
    Config,
    Notes,
    Tags,
    CreatedBy,
    Status,
    EventType,
    Nodes,
    Connections,
}

impl Slot {
    pub(super) const COUNT: usize = Self::Connections as usize + 1;

    /// The canonical name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RunId => "run_id",
            Self::Timestamp => "timestamp",
            Self::Seq => "seq",
            Self::Epoch => "epoch",
            Self::Step => "step",
            Self::TrainLoss => "train_loss",
            Self::TrainAccuracy => "train_accuracy",
            Self::ValLoss => "val_loss",
            Self::ValAccuracy => "val_accuracy",
            Self::LearningRate => "learning_rate",
            Self::HiddenUnits => "hidden_units",
            Self::Phase => "phase",
            Self::InputSize => "input_size",
            Self::OutputSize => "output_size",
            Self::TotalParameters => "total_parameters",
            Self::WeightsSummary => "weights_summary",
            Self::DatasetName => "dataset_name",
            Self::DatasetSize => "dataset_size",
            Self::Config => "config",
            Self::Notes => "notes",
            Self::Tags => "tags",
            Self::CreatedBy => "created_by",
            Self::Status => "status",
            Self::EventType => "event_type",
            Self::Nodes => "nodes",
            Self::Connections => "connections",
        }
    }
}

/// The meaning of a name, and its rank among the names of that meaning: 0 is the canonical one.
pub(super) fn meaning(name: &str) -> Option<(Slot, u8)> {
    Some(match name {
        "epoch" => (Slot::Epoch, 0),
        "current_epoch" => (Slot::Epoch, 1),
        "timestamp" => (Slot::Timestamp, 0),
        "time" => (Slot::Timestamp, 1),
        "ts" => (Slot::Timestamp, 2),
        "created_at" => (Slot::Timestamp, 3),
        "run_id" => (Slot::RunId, 0),
        "training_run_id" => (Slot::RunId, 1),
        "training_id" => (Slot::RunId, 2),
        "runId" => (Slot::RunId, 3),
        "run" => (Slot::RunId, 4),
        "seq" => (Slot::Seq, 0),
        "sequence" => (Slot::Seq, 1),
        "seq_no" => (Slot::Seq, 2),
        "step" => (Slot::Step, 0),
        "global_step" => (Slot::Step, 1),
        "iteration" => (Slot::Step, 2),
        "train_loss" => (Slot::TrainLoss, 0),
        "loss" => (Slot::TrainLoss, 1),
        "training_loss" => (Slot::TrainLoss, 2),
        "train_accuracy" => (Slot::TrainAccuracy, 0),
        "accuracy" => (Slot::TrainAccuracy, 1),
        "acc" => (Slot::TrainAccuracy, 2),
        "training_accuracy" => (Slot::TrainAccuracy, 3),
        "val_loss" => (Slot::ValLoss, 0),
        "validation_loss" => (Slot::ValLoss, 1),
        "value_loss" => (Slot::ValLoss, 2),
        "val_accuracy" => (Slot::ValAccuracy, 0),
        "validation_accuracy" => (Slot::ValAccuracy, 1),
        "value_accuracy" => (Slot::ValAccuracy, 2),
        "learning_rate" => (Slot::LearningRate, 0),
        "lr" => (Slot::LearningRate, 1),
        "hidden_units" => (Slot::HiddenUnits, 0),
        "hidden_units_count" => (Slot::HiddenUnits, 1),
        "num_hidden_units" => (Slot::HiddenUnits, 2),
        "n_hidden" => (Slot::HiddenUnits, 3),
        "total_hidden_units" => (Slot::HiddenUnits, 4),
        "phase" => (Slot::Phase, 0),
        "cascade_phase" => (Slot::Phase, 1),
        "training_phase" => (Slot::Phase, 2),
        "input_size" => (Slot::InputSize, 0),
        "input_units" => (Slot::InputSize, 1),
        "output_size" => (Slot::OutputSize, 0),
        "output_units" => (Slot::OutputSize, 1),
        "total_parameters" => (Slot::TotalParameters, 0),
        "weights_summary" => (Slot::WeightsSummary, 0),
        "dataset_name" => (Slot::DatasetName, 0),
        "dataset" => (Slot::DatasetName, 1),
        "dataset_size" => (Slot::DatasetSize, 0),
        "config" => (Slot::Config, 0),
        "params" => (Slot::Config, 1),
        "hyperparameters" => (Slot::Config, 2),
        "notes" => (Slot::Notes, 0),
        "description" => (Slot::Notes, 1),
        "tags" => (Slot::Tags, 0),
        "created_by" => (Slot::CreatedBy, 0),
        "user" => (Slot::CreatedBy, 1),
        "status" => (Slot::Status, 0),
        "event_type" => (Slot::EventType, 0),
        "nodes" => (Slot::Nodes, 0),
        "connections" => (Slot::Connections, 0),
        _ => return None,
    })
}

/// The kind that a `type` (or the `event_type` of an `event`) names.
pub(super) fn kind(name: &str) -> Kind {
    match name {
        "metrics" | "metrics_update" | "metric" | "training_metrics" | "training_update" | "epoch" | "epoch_end" => {
            Kind::Metrics
        }
        "topology" | "topology_update" | "network_topology" => Kind::Topology,
        "training_start" | "training_started" | "run_start" => Kind::RunStart,
        "training_end" | "training_complete" | "training_completed" | "training_stopped" | "training_failed"
        | "training_error" | "run_end" => Kind::RunEnd,
        "dataset" | "dataset_info" => Kind::Dataset,
        "state" | "state_change" | "status" => Kind::State,
        _ => Kind::Other,
    }
}

/// A map whose fields count as fields of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Place {
    /// `metrics` or `final_metrics`; looked at first.
    Metrics,
    /// `network_topology`.
    Network,
    /// `details`.
    Details,
    /// `data`.
    Data,
    /// The message itself.
    Top,
}

impl Place {
    pub(super) const COUNT: usize = 5;

    /// The place that a field of this one opens when it holds a map.
    pub(super) fn inner(self, name: &str) -> Option<Self> {
        let inner = match name {
            "metrics" | "final_metrics" => Self::Metrics,
            "network_topology" => Self::Network,
            "details" => Self::Details,
            "data" => Self::Data,
            _ => return None,
        };
        // A place holds only places that are looked at before it.
        (inner < self && self > Self::Network).then_some(inner)
    }

    /// The name that tells a field apart from one of the same name elsewhere.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Network => "network_topology",
            Self::Details => "details",
            Self::Data => "data",
            Self::Top => "message",
        }
    }
}
