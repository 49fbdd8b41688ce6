"""A small convolutional network: conv, norm, activation, 2x2 pool; then a linear head."""

from __future__ import annotations

from torch import Tensor, nn

from raypipe.errors import ModelError
from raypipe.model.zoo.layers import ACTIVATIONS
from raypipe.spec.model import CnnModel

MAX_COLOURS = 4
"""Red, green, blue and transparency: so small a last dimension is hardly a width."""


class Cnn(nn.Module):
    """Reads [B, H, W] or [B, C, H, W]."""

    def __init__(self, spec: CnnModel, channels: int, height: int, width: int, num_outputs: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for out_channels in spec.channels:
            blocks += [
                nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False),
                nn.GroupNorm(1, out_channels),  # batch statistics would differ between ranks and between batch sizes
                ACTIVATIONS[spec.activation](),
                nn.MaxPool2d(2),
            ]
            channels, height, width = out_channels, height // 2, width // 2
        self.blocks = nn.Sequential(*blocks)
        head = nn.Linear(channels * height * width, num_outputs)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(spec.dropout_frac), head)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(image.unsqueeze(1) if image.dim() == 3 else image))


def build(spec: CnnModel, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    if len(input_shape) not in (2, 3):
        raise ModelError(
            f"model.kind: cnn reads one image of shape [H, W] or [C, H, W], but a row here has {list(input_shape)}",
            "name the image column alone in data.features, or use model.kind: mlp",
        )
    if len(input_shape) == 3 and input_shape[2] <= MAX_COLOURS < input_shape[0]:
        raise ModelError(
            f"model.kind: cnn reads one image of shape [C, H, W], but a row here has {list(input_shape)}, which looks "
            "like [H, W, C]",
            "put a channels_first transform last in data.transforms",
        )
    channels, height, width = (1, *input_shape) if len(input_shape) == 2 else input_shape
    smallest = 2 ** len(spec.channels)
    if min(height, width) < smallest:
        raise ModelError(
            f"model.channels has {len(spec.channels)} blocks, each halving the image, so it needs at least "
            f"{smallest}x{smallest} pixels; the data has {height}x{width}",
            "give fewer channels",
        )
    return Cnn(spec, channels, height, width, num_outputs)
