"""The shortest trainer: logistic regression on two spirals, in plain Python."""

import math
import random

import cascor_ingest

random.seed(7)
points = [
    (sign * r * math.sin(r * 6), sign * r * math.cos(r * 6), sign) for sign in (1, -1) for r in (n / 97 for n in range(97))
]
w, lr = [0.1, -0.1, 0.0], 0.01

with cascor_ingest.init(name="spiral-7", config={"lr": lr}, dataset="two_spirals", tags=["sweep"]) as run:
    for step in range(1000):
        x, y, label = random.choice(points)
        error = math.tanh(w[0] * x + w[1] * y + w[2]) - label
        gradient = [error * x, error * y, error]
        w = [weight - lr * g for weight, g in zip(w, gradient)]
        run.log({"train_loss": error**2 / 2, "grad_norm": math.hypot(*gradient)}, epoch=step // 194, step=step)
        if run.stopped:
            break
