"""A small convolutional network: conv, norm, activation, 2x2 pool; then a linear head."""

from __future__ import annotations

from torch import Tensor, nn

from raypipe.model.features import Features
from raypipe.model.zoo.images import Image, check_halvings, image_of
from raypipe.model.zoo.layers import ACTIVATIONS
from raypipe.spec.model import CnnModel


class Cnn(nn.Module):
    """Reads [B, H, W] or [B, C, H, W], gives [B, num_outputs]."""

    def __init__(self, spec: CnnModel, image: Image, num_outputs: int) -> None:
        super().__init__()
        channels, height, width = image
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


def build(spec: CnnModel, features: Features, num_outputs: int) -> nn.Module:
    image = image_of(features.shape, spec.kind)
    num = len(spec.channels)
    check_halvings(image.height, image.width, num, f"model.channels has {num} blocks")
    return Cnn(spec, image, num_outputs)
