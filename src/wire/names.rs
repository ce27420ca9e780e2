//! The contract's field names: which column a name means, and whether it is its canonical name or an alias.

use super::outcome;
use crate::event::Kind;

/// What a field of a message can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FieldId {
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

impl FieldId {
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
pub(super) enum ExpectedType {
    /// A number.
    Number,
    /// Text, or a number as text.
    Text,
    /// Anything.
    Any,
}

impl FieldId {
    /// What values this field takes.
    pub(super) fn expected_type(self) -> ExpectedType {
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
            | Self::DatasetSize => ExpectedType::Number,
            Self::RunId | Self::Phase | Self::Notes | Self::CreatedBy | Self::EventType => ExpectedType::Text,
            Self::Timestamp
            | Self::WeightsSummary
            | Self::DatasetName
            | Self::Config
            | Self::Tags
            | Self::Status
            | Self::Nodes
            | Self::Connections => ExpectedType::Any,
        }
    }
}

/// The meaning of a name, and its rank among the names of that meaning: 0 is the canonical one.
#[inline]
pub(super) fn lookup(name: &str) -> Option<(FieldId, u8)> {
    // By length first: this runs for every field of every message, and most names then meet a handful of others.
    Some(match name.len() {
        2 => match name {
            "ts" => (FieldId::Timestamp, 2),
            "lr" => (FieldId::LearningRate, 1),
            _ => return None,
        },
        3 => match name {
            "run" => (FieldId::RunId, 4),
            "seq" => (FieldId::Seq, 0),
            "acc" => (FieldId::TrainAccuracy, 2),
            _ => return None,
        },
        4 => match name {
            "time" => (FieldId::Timestamp, 1),
            "step" => (FieldId::Step, 0),
            "loss" => (FieldId::TrainLoss, 1),
            "tags" => (FieldId::Tags, 0),
            "user" => (FieldId::CreatedBy, 1),
            _ => return None,
        },
        5 => match name {
            "epoch" => (FieldId::Epoch, 0),
            "runId" => (FieldId::RunId, 3),
            "phase" => (FieldId::Phase, 0),
            "notes" => (FieldId::Notes, 0),
            "nodes" => (FieldId::Nodes, 0),
            "event" => (FieldId::EventType, 1),
            _ => return None,
        },
        6 => match name {
            "run_id" => (FieldId::RunId, 0),
            "seq_no" => (FieldId::Seq, 2),
            "config" => (FieldId::Config, 0),
            "params" => (FieldId::Config, 1),
            "status" => (FieldId::Status, 0),
            _ => return None,
        },
        7 => match name {
            "dataset" => (FieldId::DatasetName, 1),
            "outcome" => (FieldId::Status, 2),
            "val_acc" => (FieldId::ValAccuracy, 3),
            "val/acc" => (FieldId::ValAccuracy, 7),
            "val.acc" => (FieldId::ValAccuracy, 10),
            _ => return None,
        },
        8 => match name {
            "sequence" => (FieldId::Seq, 1),
            "accuracy" => (FieldId::TrainAccuracy, 1),
            "val_loss" => (FieldId::ValLoss, 0),
            "n_hidden" => (FieldId::HiddenUnits, 3),
            "val/loss" => (FieldId::ValLoss, 5),
            "val.loss" => (FieldId::ValLoss, 7),
            _ => return None,
        },
        9 => match name {
            "timestamp" => (FieldId::Timestamp, 0),
            "iteration" => (FieldId::Step, 2),
            "eval_loss" => (FieldId::ValLoss, 4),
            "eval/loss" => (FieldId::ValLoss, 6),
            "eval.loss" => (FieldId::ValLoss, 8),
            "train_acc" => (FieldId::TrainAccuracy, 4),
            "train/acc" => (FieldId::TrainAccuracy, 6),
            "train.acc" => (FieldId::TrainAccuracy, 8),
            _ => return None,
        },
        10 => match name {
            "created_at" => (FieldId::Timestamp, 3),
            "train_loss" => (FieldId::TrainLoss, 0),
            "value_loss" => (FieldId::ValLoss, 2),
            "valid_loss" => (FieldId::ValLoss, 3),
            "train/loss" => (FieldId::TrainLoss, 3),
            "train.loss" => (FieldId::TrainLoss, 4),
            "input_size" => (FieldId::InputSize, 0),
            "created_by" => (FieldId::CreatedBy, 0),
            "event_type" => (FieldId::EventType, 0),
            _ => return None,
        },
        11 => match name {
            "training_id" => (FieldId::RunId, 2),
            "global_step" => (FieldId::Step, 1),
            "input_units" => (FieldId::InputSize, 1),
            "output_size" => (FieldId::OutputSize, 0),
            "description" => (FieldId::Notes, 1),
            "connections" => (FieldId::Connections, 0),
            _ => return None,
        },
        12 => match name {
            "val_accuracy" => (FieldId::ValAccuracy, 0),
            "hidden_units" => (FieldId::HiddenUnits, 0),
            "output_units" => (FieldId::OutputSize, 1),
            "dataset_name" => (FieldId::DatasetName, 0),
            "dataset_size" => (FieldId::DatasetSize, 0),
            "final_status" => (FieldId::Status, 1),
            "val/accuracy" => (FieldId::ValAccuracy, 6),
            "val.accuracy" => (FieldId::ValAccuracy, 9),
            _ => return None,
        },
        13 => match name {
            "current_epoch" => (FieldId::Epoch, 1),
            "training_loss" => (FieldId::TrainLoss, 2),
            "learning_rate" => (FieldId::LearningRate, 0),
            "cascade_phase" => (FieldId::Phase, 1),
            "eval_accuracy" => (FieldId::ValAccuracy, 5),
            "eval/accuracy" => (FieldId::ValAccuracy, 8),
            "eval.accuracy" => (FieldId::ValAccuracy, 11),
            _ => return None,
        },
        14 => match name {
            "train_accuracy" => (FieldId::TrainAccuracy, 0),
            "value_accuracy" => (FieldId::ValAccuracy, 2),
            "training_phase" => (FieldId::Phase, 2),
            "valid_accuracy" => (FieldId::ValAccuracy, 4),
            "train/accuracy" => (FieldId::TrainAccuracy, 5),
            "train.accuracy" => (FieldId::TrainAccuracy, 7),
            _ => return None,
        },
        15 => match name {
            "training_run_id" => (FieldId::RunId, 1),
            "validation_loss" => (FieldId::ValLoss, 1),
            "weights_summary" => (FieldId::WeightsSummary, 0),
            "hyperparameters" => (FieldId::Config, 2),
            _ => return None,
        },
        16 => match name {
            "num_hidden_units" => (FieldId::HiddenUnits, 2),
            "total_parameters" => (FieldId::TotalParameters, 0),
            _ => return None,
        },
        17 => match name {
            "training_accuracy" => (FieldId::TrainAccuracy, 3),
            _ => return None,
        },
        18 => match name {
            "hidden_units_count" => (FieldId::HiddenUnits, 1),
            "total_hidden_units" => (FieldId::HiddenUnits, 4),
            _ => return None,
        },
        19 => match name {
            "validation_accuracy" => (FieldId::ValAccuracy, 1),
            "trainer/global_step" => (FieldId::Step, 3),
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
pub(super) enum Section {
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

impl Section {
    pub(super) const COUNT: usize = 5;

    /// The section that a field of this one opens when it holds a map.
    pub(super) fn inner(self, name: &str) -> Option<Self> {
        let inner = match name {
            "metrics" | "final_metrics" => Self::Metrics,
            "network_topology" => Self::Network,
            "details" => Self::Details,
            "data" => Self::Data,
            _ => return None,
        };
        // A section holds only sections that are looked at before it.
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
