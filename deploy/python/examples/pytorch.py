"""Plain PyTorch: two spirals, published with three lines. `python pytorch.py`, with torch installed."""

import math

import torch

import cascor_ingest


def spirals(points: int = 97) -> tuple[torch.Tensor, torch.Tensor]:
    """The two-spirals data of Lang and Witbrock: 194 points, two classes."""
    angle = torch.arange(points) * math.pi / 16
    radius = 6.5 * (104 - torch.arange(points)) / 104 / 6.5
    one = torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=1)
    return torch.cat([one, -one]), torch.cat([torch.ones(points, 1), torch.zeros(points, 1)])


def main() -> None:
    """Trains until it is told to stop, or for 1,000 epochs."""
    torch.manual_seed(7)
    x, y = spirals()
    config = {"lr": 0.01, "hidden": 64, "epochs": 1_000}
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), config["lr"])
    dataset = {"name": "two_spirals", "num_samples": len(x), "num_features": 2, "num_classes": 2}
    with cascor_ingest.init(name="spiral-torch", config=config, dataset=dataset) as run:
        for epoch in range(config["epochs"]):
            optimizer.zero_grad()
            output = model(x)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(output, y)
            loss.backward()
            optimizer.step()
            accuracy = ((output > 0) == (y > 0.5)).float().mean()
            run.log({"train_loss": loss, "train_accuracy": accuracy}, epoch=epoch)
            run.wait_while_paused()
            if run.stopped:
                break


if __name__ == "__main__":
    main()
