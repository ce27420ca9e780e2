//! One training run as a sequence of the messages that trainers send.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::network::{INPUTS, Network, Score};

/// How to train.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hidden units, at most.
    pub max_hidden: usize,
    /// Epochs of all phases together, at most.
    pub max_epochs: u32,
    /// Candidates in a pool.
    pub candidates: usize,
    /// Epochs of one phase, at most.
    pub phase_epochs: u32,
    /// Metrics messages an epoch: more than one where the rate of messages exceeds that of epochs.
    pub steps: u32,
    /// Seed of the initial weights.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { max_hidden: 16, max_epochs: 10_000, candidates: 8, phase_epochs: 80, steps: 1, seed: 1 }
    }
}

/// The stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    Output,
    Candidate,
    Done,
}

/// The progress of a run.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "self-explanatory")]
pub struct Progress {
    pub epoch: u32,
    pub hidden_units: usize,
    pub score: Score,
    pub phase: &'static str,
}

/// A run in progress.
#[derive(Debug)]
pub struct Trainer {
    plan: Plan,
    network: Network,
    stage: Stage,
    waiting: VecDeque<Value>,
    epoch: u32,
    step: u32,
    phase_epoch: u32,
    /// Best value of this phase, and the epoch of the phase in which it was reached.
    best: (f64, u32),
    score: Score,
    history: Vec<Value>,
}

const LEARNING_RATE: f64 = 0.02;
/// A phase ends after this many epochs without gaining a hundredth.
const PATIENCE: u32 = 20;

impl Trainer {
    /// A run that has not begun.
    pub fn new(plan: Plan) -> Self {
        Self {
            network: Network::new(plan.seed),
            plan,
            stage: Stage::Start,
            waiting: VecDeque::new(),
            epoch: 0,
            step: 0,
            phase_epoch: 0,
            best: (0.0, 0),
            score: Score::default(),
            history: Vec::new(),
        }
    }

    /// The next message, without run and time; trains as far as needed. `None` once the run has ended.
    pub fn next_message(&mut self) -> Option<Value> {
        while self.waiting.is_empty() && self.stage != Stage::Done {
            match self.stage {
                Stage::Start => self.start(),
                Stage::Output => self.output(),
                Stage::Candidate => self.candidate(),
                Stage::Done => {}
            }
        }
        self.waiting.pop_front()
    }

    /// A message that is ready, without training for it.
    pub fn waiting_message(&mut self) -> Option<Value> {
        self.waiting.pop_front()
    }

    /// Whether the run has ended and every message was taken.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done && self.waiting.is_empty()
    }

    /// Reports that the run was paused or resumed.
    pub fn set_paused(&mut self, paused: bool) {
        if self.stage != Stage::Done {
            self.state(if paused { "Paused" } else { "Started" });
        }
    }

    /// Ends the run before its time.
    pub fn interrupt(&mut self, reason: &str) {
        if self.stage != Stage::Done {
            self.end("stopped", reason);
        }
    }

    /// The progress of the run.
    pub fn progress(&self) -> Progress {
        Progress {
            epoch: self.epoch,
            hidden_units: self.network.hidden_units(),
            score: self.score,
            phase: self.phase(),
        }
    }

    fn start(&mut self) {
        self.waiting.push_back(json!({"type": "training_start", "data": {
            "dataset": {"name": "two_spirals", "num_samples": 194, "num_features": INPUTS, "num_classes": 2},
            "config": {
                "algorithm": "cascade_correlation", "optimizer": "irprop-", "learning_rate": LEARNING_RATE,
                "candidate_pool_size": self.plan.candidates, "max_hidden_units": self.plan.max_hidden,
                "max_epochs": self.plan.max_epochs, "seed": self.plan.seed,
            },
            "tags": ["demo"], "created_by": "cascor-ingest demo",
        }}));
        self.enter(Stage::Output);
        self.topology();
    }

    fn output(&mut self) {
        self.score = self.network.output_epoch();
        self.metrics("output", None);
        if self.score.train_accuracy >= 1.0 && self.score.train_loss < 0.05 {
            return self.end("completed", "converged");
        }
        if self.stage != Stage::Done && self.phase_is_over(1.0 - self.score.train_loss) {
            if self.network.hidden_units() >= self.plan.max_hidden {
                return self.end("completed", "max_hidden_units");
            }
            self.network.begin_candidates(self.plan.candidates);
            self.enter(Stage::Candidate);
        }
    }

    fn candidate(&mut self) {
        let correlation = self.network.candidate_epoch();
        self.metrics("candidate", Some(correlation));
        // The last epoch may have ended the run.
        if self.stage != Stage::Done && self.phase_is_over(correlation) {
            self.network.install();
            let index = self.network.hidden_units() - 1;
            let grown = json!({"hidden_unit_index": index, "correlation": correlation, "epoch": self.epoch,
                "total_hidden_units": index + 1});
            self.history.push(grown.clone());
            self.waiting.push_back(json!({"type": "cascade_add", "data": grown}));
            self.topology();
            self.enter(Stage::Output);
        }
    }

    /// Counts the epoch; returns whether `value` has stopped to rise, or the phase has reached its limit of epochs.
    fn phase_is_over(&mut self, value: f64) -> bool {
        self.phase_epoch += 1;
        if value > self.best.0 + 0.01 {
            self.best = (value, self.phase_epoch);
        }
        self.phase_epoch >= self.plan.phase_epochs || self.phase_epoch - self.best.1 >= PATIENCE
    }

    fn metrics(&mut self, phase: &'static str, correlation: Option<f64>) {
        let score = self.score;
        for _ in 0..self.plan.steps.max(1) {
            let mut data = json!({
                "epoch": self.epoch, "step": self.step, "phase": phase, "hidden_units": self.network.hidden_units(),
                "train_loss": score.train_loss, "train_accuracy": score.train_accuracy, "val_loss": score.val_loss,
                "val_accuracy": score.val_accuracy, "learning_rate": LEARNING_RATE,
            });
            if let Some(correlation) = correlation {
                data["candidate_correlation"] = correlation.into();
            }
            self.waiting.push_back(json!({"type": "metrics", "data": data}));
            self.step += 1;
        }
        self.epoch += 1;
        if self.epoch >= self.plan.max_epochs {
            self.end("completed", "max_epochs");
        }
    }

    fn enter(&mut self, stage: Stage) {
        (self.stage, self.phase_epoch, self.best) = (stage, 0, (0.0, 0));
        self.state("Started");
    }

    fn state(&mut self, status: &str) {
        let phase = if self.stage == Stage::Candidate { "Candidate" } else { "Output" };
        self.waiting.push_back(json!({"type": "state", "data": {
            "status": status, "phase": phase, "current_epoch": self.epoch, "learning_rate": LEARNING_RATE,
            "hidden_units": self.network.hidden_units(),
        }}));
    }

    fn topology(&mut self) {
        let units: Vec<_> = (0..self.network.hidden_units()).map(|id| json!({"id": id, "layer": id + 1})).collect();
        let connections: Vec<_> = (self.network.connections())
            .map(|(from, to, weight)| json!({"from": from, "to": to, "weight": weight}))
            .collect();
        self.waiting.push_back(json!({"type": "topology", "data": {
            "input_units": INPUTS, "output_units": 1, "hidden_units": units, "connections": connections,
            "cascade_history": self.history, "current_epoch": self.epoch,
        }}));
    }

    fn end(&mut self, status: &str, reason: &str) {
        if self.stage == Stage::Done {
            return;
        }
        let score = self.score;
        self.waiting.push_back(json!({"type": "training_end", "data": {
            "status": status, "reason": reason, "epoch": self.epoch, "hidden_units": self.network.hidden_units(),
            "total_parameters": self.network.parameters(), "final_metrics": {
                "train_loss": score.train_loss, "train_accuracy": score.train_accuracy,
                "val_loss": score.val_loss, "val_accuracy": score.val_accuracy,
            },
        }}));
        self.stage = Stage::Done;
    }

    fn phase(&self) -> &'static str {
        match self.stage {
            Stage::Start => "starting",
            Stage::Output => "output",
            Stage::Candidate => "candidate",
            Stage::Done => "done",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(plan: Plan) -> Vec<Value> {
        let mut trainer = Trainer::new(plan);
        std::iter::from_fn(|| trainer.next_message()).collect()
    }

    fn of<'a>(messages: &'a [Value], kind: &str) -> Vec<&'a Value> {
        messages.iter().filter(|message| message["type"] == kind).map(|message| &message["data"]).collect()
    }

    #[test]
    fn a_run_begins_grows_and_ends() {
        let messages = run(Plan { max_hidden: 3, ..Plan::default() });
        assert_eq!(messages[0]["type"], "training_start");
        assert_eq!(messages[0]["data"]["dataset"]["num_samples"], 194);
        assert!(messages[0]["data"]["config"].is_object());
        let last = &messages[messages.len() - 1];
        assert_eq!((&last["type"], &last["data"]["reason"]), (&"training_end".into(), &"max_hidden_units".into()));
        assert!(last["data"]["final_metrics"]["train_loss"].is_f64());

        let grown: Vec<_> = of(&messages, "cascade_add").iter().map(|data| data["hidden_unit_index"].clone()).collect();
        assert_eq!(grown, [0, 1, 2]);
        let sizes: Vec<_> =
            of(&messages, "topology").iter().map(|data| data["hidden_units"].as_array().unwrap().len()).collect();
        assert_eq!(sizes, [0, 1, 2, 3], "a topology at the start and at each growth");
        let phases: Vec<_> = of(&messages, "state").iter().map(|data| data["phase"].clone()).collect();
        assert_eq!(phases, ["Output", "Candidate", "Output", "Candidate", "Output", "Candidate", "Output"]);
    }

    #[test]
    fn metrics_count_epochs_and_name_their_phase() {
        let messages = run(Plan { max_hidden: 2, ..Plan::default() });
        let metrics = of(&messages, "metrics");
        for (epoch, data) in metrics.iter().enumerate() {
            assert_eq!(data["epoch"], epoch);
            assert_eq!(data["phase"] == "candidate", data["candidate_correlation"].is_f64());
            assert!(data["train_loss"].is_f64() && data["val_accuracy"].is_f64() && data["hidden_units"].is_u64());
        }
        let losses: Vec<_> = metrics.iter().map(|data| data["train_loss"].as_f64().unwrap()).collect();
        assert!(losses[losses.len() - 1] < losses[0], "the loss falls");
    }

    #[test]
    fn epochs_are_a_bound_and_steps_multiply_messages() {
        let messages = run(Plan { max_epochs: 5, steps: 4, ..Plan::default() });
        let metrics = of(&messages, "metrics");
        assert_eq!(metrics.len(), 20);
        assert_eq!((&metrics[19]["epoch"], &metrics[19]["step"]), (&4.into(), &19.into()));
        assert_eq!(messages[messages.len() - 1]["data"]["reason"], "max_epochs");
        assert_eq!(of(&messages, "training_end").len(), 1);
    }

    #[test]
    fn an_interrupted_run_says_so_once() {
        let mut trainer = Trainer::new(Plan::default());
        (0..50).for_each(|_| _ = trainer.next_message());
        trainer.set_paused(true);
        trainer.interrupt("reset");
        trainer.interrupt("again");
        let rest: Vec<_> = std::iter::from_fn(|| trainer.next_message()).collect();
        assert_eq!(of(&rest, "state").last().unwrap()["status"], "Paused");
        let ends = of(&rest, "training_end");
        assert_eq!((ends.len(), &ends[0]["status"], &ends[0]["reason"]), (1, &"stopped".into(), &"reset".into()));
    }
}
