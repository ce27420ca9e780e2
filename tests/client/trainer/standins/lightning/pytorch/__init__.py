"""A stand-in: calls a callback and loggers as `lightning.pytorch.Trainer.fit` does."""

import types


class Trainer:
    def __init__(self, callback, is_global_zero=True):
        self.callback, self.is_global_zero = callback, is_global_zero
        self.loggers, self.should_stop, self.sanity_checking = [], False, False

    def fit(self, epochs, batches=4, each=None):
        module, step = types.SimpleNamespace(hparams={"hidden": 8}), 0
        self.callback.on_fit_start(self, module)
        try:
            for epoch in range(epochs):
                for batch in range(batches):
                    if each:
                        each(epoch, batch)
                    self.callback.on_train_batch_end(self, module, None, None, batch)
                    self.log({"train_loss": 1 / (step + 1), "epoch": epoch}, step)
                    step += 1
                self.log({"val_loss": 1 / (epoch + 1), "val_acc": 0.5, "epoch": epoch}, step - 1)
                if self.should_stop:
                    break
        except BaseException as error:
            self.callback.on_exception(self, module, error)
            raise
        self.callback.on_fit_end(self, module)

    def log(self, metrics, step):
        for logger in self.loggers:
            logger.log_metrics(metrics=metrics, step=step)
