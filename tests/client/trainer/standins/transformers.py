"""A stand-in: calls a callback as `transformers.Trainer.train` does."""

import types


class TrainerCallback:
    pass


class Trainer:
    def __init__(self, callback, process_zero=True):
        self.callback = callback
        self.args = types.SimpleNamespace(to_dict=lambda: {"learning_rate": 0.5, "output_dir": "out"})
        self.state = types.SimpleNamespace(is_world_process_zero=process_zero, global_step=0, epoch=0.0)
        self.control = types.SimpleNamespace(should_training_stop=False)

    def call(self, hook, **more):
        getattr(self.callback, hook)(self.args, self.state, self.control, **more)

    def train(self, steps, each=None):
        self.call("on_train_begin")
        for step in range(1, steps + 1):
            self.state.global_step, self.state.epoch = step, step / 4
            if each:
                each(step)
            self.call("on_step_end")
            if self.control.should_training_stop:
                break
            if step % 2 == 0:
                self.call("on_log", logs={"loss": 1 / step, "grad_norm": 2.0, "learning_rate": 0.5, "epoch": step / 4})
        self.call("on_log", logs={"eval_loss": 0.25, "eval_accuracy": 0.75, "epoch": steps / 4})
        self.call("on_log", logs={"train_runtime": 1.5, "train_loss": 0.9, "epoch": steps / 4})
        self.call("on_train_end")
