//! The contract's field names: which column a name means, and whether it is its canonical name or an alias.

use super::outcome;
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

/// What values a field of a meaning takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// A number.
    Number,
    /// Text, or a number as text.
    Text,
    /// Anything.
    Any,
}

impl Slot {
    /// What values this field takes.
    pub(super) fn takes(self) -> Takes {
        match self {
            Self::Seq
            | Self::Epoch
            | Self::Step
            | Self::TrainLoss
            | Self::TrainAccuracy
            | Self::ValLoss
            | Self::ValAccuracy
            | Self::LearningRate
            | Self::HiddenUnits
            | Self::InputSize
            | Self::OutputSize
            | Self::TotalParameters
            | Self::DatasetSize => Takes::Number,
            Self::RunId | Self::Phase | Self::Notes | Self::CreatedBy | Self::EventType => Takes::Text,
            Self::Timestamp
            | Self::WeightsSummary
            | Self::DatasetName
            | Self::Config
            | Self::Tags
            | Self::Status
            | Self::Nodes
            | Self::Connections => Takes::Any,
        }
    }
}

/// The meaning of a name, and its rank among the names of that meaning: 0 is the canonical one.
#[inline]
pub(super) fn meaning(name: &str) -> Option<(Slot, u8)> {
    // By length first: this runs for every field of every message, and most names then meet a handful of others.
    Some(match name.len() {
        2 => match name {
            "ts" => (Slot::Timestamp, 2),
            "lr" => (Slot::LearningRate, 1),
            _ => return None,
        },
        3 => match name {
            "run" => (Slot::RunId, 4),
            "seq" => (Slot::Seq, 0),
            "acc" => (Slot::TrainAccuracy, 2),
            _ => return None,
        },
        4 => match name {
            "time" => (Slot::Timestamp, 1),
            "step" => (Slot::Step, 0),
            "loss" => (Slot::TrainLoss, 1),
            "tags" => (Slot::Tags, 0),
            "user" => (Slot::CreatedBy, 1),
            _ => return None,
        },
        5 => match name {
            "epoch" => (Slot::Epoch, 0),
            "runId" => (Slot::RunId, 3),
            "phase" => (Slot::Phase, 0),
            "notes" => (Slot::Notes, 0),
            "nodes" => (Slot::Nodes, 0),
            "event" => (Slot::EventType, 1),
            _ => return None,
        },
        6 => match name {
            "run_id" => (Slot::RunId, 0),
            "seq_no" => (Slot::Seq, 2),
            "config" => (Slot::Config, 0),
            "params" => (Slot::Config, 1),
            "status" => (Slot::Status, 0),
            _ => return None,
        },
        7 => match name {
            "dataset" => (Slot::DatasetName, 1),
            "outcome" => (Slot::Status, 2),
            "val_acc" => (Slot::ValAccuracy, 3),
            "val/acc" => (Slot::ValAccuracy, 7),
            "val.acc" => (Slot::ValAccuracy, 10),
            _ => return None,
        },
        8 => match name {
            "sequence" => (Slot::Seq, 1),
            "accuracy" => (Slot::TrainAccuracy, 1),
            "val_loss" => (Slot::ValLoss, 0),
            "n_hidden" => (Slot::HiddenUnits, 3),
            "val/loss" => (Slot::ValLoss, 5),
            "val.loss" => (Slot::ValLoss, 7),
            _ => return None,
        },
        9 => match name {
            "timestamp" => (Slot::Timestamp, 0),
            "iteration" => (Slot::Step, 2),
            "eval_loss" => (Slot::ValLoss, 4),
            "eval/loss" => (Slot::ValLoss, 6),
            "eval.loss" => (Slot::ValLoss, 8),
            "train_acc" => (Slot::TrainAccuracy, 4),
            "train/acc" => (Slot::TrainAccuracy, 6),
            "train.acc" => (Slot::TrainAccuracy, 8),
            _ => return None,
        },
        10 => match name {
            "created_at" => (Slot::Timestamp, 3),
            "train_loss" => (Slot::TrainLoss, 0),
            "value_loss" => (Slot::ValLoss, 2),
            "valid_loss" => (Slot::ValLoss, 3),
            "train/loss" => (Slot::TrainLoss, 3),
            "train.loss" => (Slot::TrainLoss, 4),
            "input_size" => (Slot::InputSize, 0),
            "created_by" => (Slot::CreatedBy, 0),
            "event_type" => (Slot::EventType, 0),
            _ => return None,
        },
        11 => match name {
            "training_id" => (Slot::RunId, 2),
            "global_step" => (Slot::Step, 1),
            "input_units" => (Slot::InputSize, 1),
            "output_size" => (Slot::OutputSize, 0),
            "description" => (Slot::Notes, 1),
            "connections" => (Slot::Connections, 0),
            _ => return None,
        },
        12 => match name {
            "val_accuracy" => (Slot::ValAccuracy, 0),
            "hidden_units" => (Slot::HiddenUnits, 0),
            "output_units" => (Slot::OutputSize, 1),
            "dataset_name" => (Slot::DatasetName, 0),
            "dataset_size" => (Slot::DatasetSize, 0),
            "final_status" => (Slot::Status, 1),
            "val/accuracy" => (Slot::ValAccuracy, 6),
            "val.accuracy" => (Slot::ValAccuracy, 9),
            _ => return None,
        },
        13 => match name {
            "current_epoch" => (Slot::Epoch, 1),
            "training_loss" => (Slot::TrainLoss, 2),
            "learning_rate" => (Slot::LearningRate, 0),
            "cascade_phase" => (Slot::Phase, 1),
            "eval_accuracy" => (Slot::ValAccuracy, 5),
            "eval/accuracy" => (Slot::ValAccuracy, 8),
            "eval.accuracy" => (Slot::ValAccuracy, 11),
            _ => return None,
        },
        14 => match name {
            "train_accuracy" => (Slot::TrainAccuracy, 0),
            "value_accuracy" => (Slot::ValAccuracy, 2),
            "training_phase" => (Slot::Phase, 2),
            "valid_accuracy" => (Slot::ValAccuracy, 4),
            "train/accuracy" => (Slot::TrainAccuracy, 5),
            "train.accuracy" => (Slot::TrainAccuracy, 7),
            _ => return None,
        },
        15 => match name {
            "training_run_id" => (Slot::RunId, 1),
            "validation_loss" => (Slot::ValLoss, 1),
            "weights_summary" => (Slot::WeightsSummary, 0),
            "hyperparameters" => (Slot::Config, 2),
            _ => return None,
        },
        16 => match name {
            "num_hidden_units" => (Slot::HiddenUnits, 2),
            "total_parameters" => (Slot::TotalParameters, 0),
            _ => return None,
        },
        17 => match name {
            "training_accuracy" => (Slot::TrainAccuracy, 3),
            _ => return None,
        },
        18 => match name {
            "hidden_units_count" => (Slot::HiddenUnits, 1),
            "total_hidden_units" => (Slot::HiddenUnits, 4),
            _ => return None,
        },
        19 => match name {
            "validation_accuracy" => (Slot::ValAccuracy, 1),
            "trainer/global_step" => (Slot::Step, 3),
            _ => return None,
        },
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
        "training_start" | "training_started" | "training_begin" | "run_start" | "run_started" => Kind::RunStart,
        "training_end" | "run_end" => Kind::RunEnd,
        "dataset" | "dataset_info" => Kind::Dataset,
        "state" | "state_change" | "status" => Kind::State,
        name if outcome::named_by_type(name).is_some() => Kind::RunEnd,
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
