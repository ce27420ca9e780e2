"""A stand-in: calls a callback as `keras.Model.fit` does."""


class callbacks:
    class Callback:
        def __init__(self):
            self.model = self.params = None

        def set_params(self, params):
            self.params = params

        def set_model(self, model):
            self.model = model


class Optimizer:
    def get_config(self):
        return {"name": "adam", "learning_rate": 0.5}


class Model:
    name, optimizer = "two_spirals", Optimizer()

    def fit(self, epochs, callbacks, batches=4, each=None):
        self.stop_training = False
        for callback in callbacks:
            callback.set_params({"epochs": epochs, "steps": batches, "verbose": 0})
            callback.set_model(self)
            callback.on_train_begin({})
        for epoch in range(epochs):
            for callback in callbacks:
                callback.on_epoch_begin(epoch, {})
            for batch in range(batches):
                if each:
                    each(epoch, batch)
                for callback in callbacks:
                    callback.on_train_batch_end(batch, {"loss": 1 / (epoch + 1)})
                if self.stop_training:
                    break
            logs = {"loss": 1 / (epoch + 1), "accuracy": epoch / epochs, "val_loss": 2 / (epoch + 1), "val_accuracy": epoch / 2 / epochs}
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs)
            if self.stop_training:
                break
        for callback in callbacks:
            callback.on_train_end({})
