"""The callbacks of Lightning and Transformers with the real ones, on the processor: the API shows the curves that they report."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "trainer"))

import torch  # noqa: E402

if torch.__version__.startswith("1."):
    # Parts of `torch.distributed` 1.13, which Lightning imports where it is available, cannot be imported on Python 3.11.
    torch.distributed.is_available = lambda: False

import lightning.pytorch as pl  # noqa: E402
import transformers  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from servers import Case  # noqa: E402

import cascor_ingest  # noqa: E402
from cascor_ingest.callbacks.huggingface import CascorCallback as HuggingFaceCallback  # noqa: E402
from cascor_ingest.callbacks.lightning import CascorCallback as LightningCallback  # noqa: E402

X = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]] * 8)
Y = torch.tensor([[0.0], [1], [1], [0]] * 8)


class Module(pl.LightningModule):
    def __init__(self, hidden=8, fails=False):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1))
        self.seen = []

    def loss(self, batch):
        return torch.nn.functional.binary_cross_entropy_with_logits(self.net(batch[0]), batch[1])

    def training_step(self, batch, index):
        if self.hparams.fails and self.current_epoch == 1:
            raise ValueError("the loss is NaN")
        loss = self.loss(batch)
        self.log("train_loss", loss)
        self.seen.append(float(loss))
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


class Torch(Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def fit(self, callback, module, epochs=3, callbacks=()):
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
        trainer = pl.Trainer(
            max_epochs=epochs, log_every_n_steps=2, callbacks=[callback, *callbacks], logger=CSVLogger(self.folder), accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=self.folder,
        )
        trainer.fit(module, data, data)
        return trainer

    def test_lightning(self):
        module = Module()
        trainer = self.fit(LightningCallback(name="lightning", redis_url=self.redis.url), module)
        row = self.daemon.ended("lightning", "completed")
        rows = self.daemon.rows("lightning")
        train = [(row["step"], row["train_loss"]) for row in rows if row["train_loss"] is not None]
        self.assertEqual([step for step, _ in train], [1, 3, 5, 7, 9, 11])
        for step, loss in train:
            self.assertAlmostEqual(loss, module.seen[step], 6)
        valid = [(row["epoch"], row["step"], row["val_loss"]) for row in rows if row["val_loss"] is not None]
        self.assertEqual([point[:2] for point in valid], [(0, 3), (1, 7), (2, 11)])
        self.assertAlmostEqual(valid[-1][2], float(trainer.callback_metrics["val_loss"]), 6)
        self.assertIn("hidden", str(row["config_json"]))
        self.assertEqual(len(trainer.loggers), 1, "the loggers are the caller's again")

    def test_lightning_fails(self):
        with self.assertRaises(ValueError):
            self.fit(LightningCallback(name="fails", redis_url=self.redis.url), Module(fails=True))
        self.daemon.ended("fails", "failed")
        self.assertIn("the loss is NaN", str(self.daemon.events("fails", "training_end")))

    def test_lightning_stops(self):
        callback, redis = LightningCallback(name="stops", redis_url=self.redis.url), self.redis

        class Stop(pl.Callback):
            def on_train_batch_start(self, trainer, module, batch, index):
                if trainer.global_step == 5:
                    redis.command("stop", "stops", callback._attached.run)

        trainer = self.fit(callback, Module(), epochs=50, callbacks=[Stop()])
        self.assertLess(trainer.current_epoch, 5)
        self.daemon.ended("stops", "stopped")

    def trainer(self, callbacks, steps=12):
        torch.manual_seed(1)
        config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=10)
        data = [{"input_ids": [n % 10, 3], "labels": n % 2} for n in range(16)]
        args = transformers.TrainingArguments(
            output_dir=self.folder, max_steps=steps, logging_steps=2, eval_strategy="steps", eval_steps=4, per_device_train_batch_size=4,
            report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=0.01, save_strategy="no",
        )
        model = transformers.BertForSequenceClassification(config)
        return transformers.Trainer(model=model, args=args, train_dataset=data, eval_dataset=data, callbacks=callbacks)

    def test_hugging_face(self):
        trainer = self.trainer([HuggingFaceCallback(name="hf", redis_url=self.redis.url)])
        trainer.train()
        row = self.daemon.ended("hf", "completed")
        rows = self.daemon.rows("hf")
        logged = trainer.state.log_history
        for column, name in ("train_loss", "loss"), ("val_loss", "eval_loss"), ("learning_rate", "learning_rate"):
            found = [(row["step"], row[column]) for row in rows if row[column] is not None]
            expected = [(entry["step"], float(entry[name])) for entry in logged if name in entry]
            self.assertEqual([step for step, _ in found], [step for step, _ in expected], column)
            for (_, one), (_, other) in zip(found, expected):
                self.assertAlmostEqual(one, other, 6)
        self.assertEqual(rows[-1]["extra"]["mean_train_loss"], logged[-1]["train_loss"])
        self.assertIn("0.01", str(row["config_json"]))

    def test_hugging_face_stops(self):
        callback, redis = HuggingFaceCallback(name="hf-stops", redis_url=self.redis.url), self.redis

        class Stop(transformers.TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 3:
                    redis.command("stop", "hf-stops", callback._attached.run)

        trainer = self.trainer([Stop(), callback], steps=200)
        trainer.train()
        self.assertEqual(trainer.state.global_step, 4)
        self.daemon.ended("hf-stops", "stopped")

    def test_tensors_and_workers_of_a_data_loader(self):
        with cascor_ingest.init("tensors", redis_url=self.redis.url) as run:

            class Data(torch.utils.data.Dataset):
                def __len__(self):
                    return 8

                def __getitem__(self, index):
                    run.log({"loss": -1.0})
                    return X[index]

            for step, batch in enumerate(torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork")):
                run.log({"loss": batch.sum(), "half": batch.sum().half(), "grad": torch.nn.Parameter(batch.sum())}, step=step)
        rows = self.daemon.rows("tensors", 8)
        self.assertEqual([row["train_loss"] for row in rows], [0, 1, 1, 2] * 2)
        self.assertEqual(rows[1]["extra"], {"half": 1, "grad": 1})


if __name__ == "__main__":
    unittest.main()
