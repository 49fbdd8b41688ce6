"""A residual network for small images.

Shape letters: B rows, C channels, H height, W width.
Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
"""

from __future__ import annotations

from torch import Tensor, nn

from raypipe.model.features import Features
from raypipe.model.zoo.images import Image, check_halvings, image_of
from raypipe.model.zoo.layers import ACTIVATIONS, normalization
from raypipe.spec.model import ResNetModel


class Block(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H / stride, W / stride]: two convolutions are added to what came in.

    Args:
        stride: 2 halves the image.
    """

    def __init__(self, spec: ResNetModel, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.norm1 = normalization(spec.norm, out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.norm2 = normalization(spec.norm, out_channels)
        self.activation = ACTIVATIONS[spec.activation]()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False))
            self.shortcut.append(normalization(spec.norm, out_channels))

    def forward(self, image: Tensor) -> Tensor:
        change = self.activation(self.norm1(self.conv1(image)))
        return self.activation(self.norm2(self.conv2(change)) + self.shortcut(image))


class ResNet(nn.Module):
    """Reads [B, H, W] or [B, C, H, W], gives [B, num_outputs]."""

    def __init__(self, spec: ResNetModel, image: Image, num_outputs: int) -> None:
        super().__init__()
        channels = spec.channels[0]
        self.stem = nn.Sequential(
            _conv3x3(image.channels, channels), normalization(spec.norm, channels), ACTIVATIONS[spec.activation]()
        )
        self.blocks = nn.ModuleList()
        for stage, out_channels in enumerate(spec.channels):
            for number in range(spec.blocks_per_stage):
                stride = 2 if stage > 0 and number == 0 else 1
                self.blocks.append(Block(spec, channels, out_channels, stride))
                channels = out_channels
        self.dropout = nn.Dropout(spec.dropout_frac)
        self.head = nn.Linear(channels, num_outputs)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image.unsqueeze(1) if image.dim() == 3 else image)
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(x.mean(dim=(2, 3))))


def build(spec: ResNetModel, features: Features, num_outputs: int) -> nn.Module:
    image = image_of(features.shape, spec.kind)
    halvings = len(spec.channels) - 1
    check_halvings(image.height, image.width, halvings, f"model.channels has {halvings} stages after the first")
    return ResNet(spec, image, num_outputs)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
