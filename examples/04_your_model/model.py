"""A small residual network: any function that returns a `torch.nn.Module` will do."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """x + f(x): two convolutions that keep the image's size."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.body(x))


def build(input_shape: tuple[int, ...], num_outputs: int, channels: int = 32, dropout: float = 0.1) -> nn.Module:
    """raypipe gives `input_shape` and `num_outputs` from the data; the rest comes from `model.args`.

    Args:
        input_shape: of one row, here [8, 8].
    Returns:
        A module reading float32 [B, 8, 8] and giving scores [B, num_outputs].
    """
    height, width = input_shape
    return nn.Sequential(
        nn.Unflatten(1, (1, height)),  # [B, H, W] -> [B, 1, H, W]
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        Residual(channels, dropout),
        nn.MaxPool2d(2),
        Residual(channels, dropout),
        nn.Flatten(),
        nn.Linear(channels * (height // 2) * (width // 2), num_outputs),
    )
