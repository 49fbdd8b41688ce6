"""Which network; its input shape and output width come from the data."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from typing_extensions import Self

from raypipe.spec.base import NAME_PATTERN, Spec

Activation = Literal["relu", "gelu", "silu", "tanh"]

Channels = Annotated[int, Field(ge=1, le=4096)]


MAX_PATH_CHARS = 500

SAFETENSORS = ".safetensors"


def _check_source(text: str) -> str:
    if len(text) > MAX_PATH_CHARS or "://" in text:
        raise ValueError(f"found {text[:80]!r}; must be a file of this machine or MODEL@VERSION; copy the file here")
    if text.endswith(SAFETENSORS):
        return text
    model, at, version = text.partition("@")
    if at and version and re.fullmatch(NAME_PATTERN, model) and re.fullmatch(NAME_PATTERN, version):
        return text
    raise ValueError(
        f"found {text[:80]!r}; must be MODEL@VERSION, e.g. digits@3, or a file that ends in {SAFETENSORS}; of a "
        "PyTorch file, which may hold code, make one with safetensors.torch.save_file(state_dict, path)"
    )


class ModelSpec(Spec):
    """What every network has in common: where its training starts, and what of it stays as it is."""

    init_from: Annotated[str, AfterValidator(_check_source)] | None = None
    """First weights, by name: `MODEL@VERSION` (or MODEL@ALIAS) of the same store's registry, or a file
    `weights.safetensors`, from the pipeline file's folder. Unset: drawn from `seed`."""
    init_partial: bool = False
    """Whether what `init_from` lacks, or has in another shape (as a head for other classes), may start from `seed`."""
    frozen: list[Annotated[str, Field(min_length=1, max_length=200)]] = []
    """Patterns of parameter names, e.g. `blocks.*`: these stay as they start. Batch normalization whose parameters are
    frozen keeps its running averages too."""

    @model_validator(mode="after")
    def partial_needs_a_start(self) -> Self:
        if self.init_partial and self.init_from is None:
            raise ValueError("init_partial says what init_from may lack; give init_from, or leave it out")
        return self

    def architecture(self) -> dict[str, Any]:
        """The fields that the network itself is made from, JSON-able; not where its weights come from."""
        return self.model_dump(mode="json", exclude={*ModelSpec.model_fields})

    def shaping(self) -> dict[str, Any]:
        """The fields that trained weights depend on, JSON-able. What `init_from` names counts by its content."""
        training = self.model_dump(mode="json", include={"init_partial", "frozen"}, exclude_defaults=True)
        return {**self.architecture(), **training}


class LinearModel(ModelSpec):
    """One affine layer on the flattened features: logistic or linear regression."""

    kind: Literal["linear"]


class MlpModel(ModelSpec):
    """Fully connected layers with dropout between them; inputs are flattened, categories may become vectors."""

    kind: Literal["mlp"]
    hidden: list[Annotated[int, Field(ge=1, le=65536)]] = Field([128], min_length=1, max_length=64)
    """Width of each hidden layer."""
    activation: Activation = "relu"
    """Function after each hidden layer."""
    dropout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden units zeroed while training."""
    embeddings: dict[str, Annotated[int, Field(ge=1, le=4096)]] = {}
    """Categories as learned vectors: column -> how many numbers stand for each of its categories, e.g. `district: 8`.
    The column's last transform must give an index: `ordinal`, or `hashing`, `bucketize` or `cross` (whose name is
    `one x other`) with `output: index`. A category that train has not has a vector of its own."""


class CnnModel(ModelSpec):
    """Small convolutional network for images [H, W] or [C, H, W]: conv-norm-activation-pool blocks, a linear head."""

    kind: Literal["cnn"]
    channels: list[Channels] = Field([16, 32], min_length=1, max_length=8)
    """Output channels of each block; every block halves height and width."""
    activation: Activation = "relu"
    """Function after each normalization."""
    dropout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of head inputs zeroed while training."""


class ResNetModel(ModelSpec):
    """Residual network (He et al. 2016) for small images [H, W] or [C, H, W]: a 3x3 convolution, stages of blocks of
    two 3x3 convolutions each, the mean over the image, a linear head."""

    kind: Literal["resnet"]
    channels: list[Channels] = Field([16, 32, 64], min_length=1, max_length=8)
    """Channels of each stage; every stage but the first halves height and width."""
    blocks_per_stage: int = Field(default=2, ge=1, le=128)
    """Depth: 3 stages of 3 blocks are the ResNet-20 of the article."""
    norm: Literal["group", "batch"] = "group"
    """`group`: every image by itself, in groups of up to 16 channels, so that nothing depends on the batch. `batch`: by
    the batch of one worker in training, by running averages afterwards; it learns in fewer epochs."""
    activation: Activation = "relu"
    """Function after each normalization."""
    dropout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of head inputs zeroed while training."""


class AudioCnnModel(ModelSpec):
    """Convolutional network for sounds as a `log_mel` transform gives them, [mel bands, moments]: conv-norm-activation-
    pool blocks, then mean and maximum over time, so that it does not matter when a sound is heard."""

    kind: Literal["audio_cnn"]
    channels: list[Channels] = Field([16, 32, 64], min_length=1, max_length=8)
    """Output channels of each block; every block halves bands and moments."""
    level: Literal["none", "sound", "bands"] = "sound"
    """What is taken off each sound before anything else. A logarithm turns loudness into a number that is added.
    `sound`: the sound's mean, so that its loudness does not count. `bands`: each band's mean over time, so that neither
    does the colour of microphone and room; a steady tone is then silence. `none`: nothing."""
    activation: Activation = "relu"
    """Function after each normalization."""
    dropout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of head inputs zeroed while training."""


class AttentionSpec(ModelSpec):
    """What networks of attention blocks have in common."""

    dim: int = Field(default=64, ge=2, le=16384)
    """Numbers that stand for one place of a sequence; a multiple of `num_heads`."""
    num_layers: int = Field(default=2, ge=1, le=256)
    """Blocks of attention and two fully connected layers, one after another."""
    num_heads: int = Field(default=4, ge=1, le=256)
    """Attentions side by side in each block, dim / num_heads wide."""
    hidden: int | None = Field(default=None, ge=1, le=65536)
    """Width between a block's two fully connected layers; unset: 4 x dim."""
    dropout_frac: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention weights, and of what each block adds, zeroed while training."""

    @model_validator(mode="after")
    def heads_divide_dim(self) -> Self:
        if self.dim % self.num_heads:
            near = max(self.num_heads, round(self.dim / self.num_heads) * self.num_heads)
            raise ValueError(f"dim={self.dim} does not split over num_heads={self.num_heads}; use dim={near}")
        return self


class TransformerModel(AttentionSpec):
    """Transformer encoder (Vaswani et al. 2017, normalized before each part) over a sequence: numbers [T, F], or the
    ids [T] of a `tokens` transform; the mean over T, a linear head."""

    kind: Literal["transformer"]
    activation: Activation = "gelu"
    """Function between a block's two fully connected layers."""
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    """How a place in the sequence is told from another; `none`: the order does not count."""
    padding: Literal["none", "zeros"] = "none"
    """For numbers [T, F]: with `zeros`, a place whose F numbers are all exactly 0 is padding: no other attends to it,
    and the mean leaves it out. Of ids, 0 always is."""

    @model_validator(mode="after")
    def waves_come_in_pairs(self) -> Self:
        if self.positions == "sinusoidal" and self.dim % 2:
            raise ValueError(f"positions: sinusoidal needs an even dim (sines and cosines in pairs); found {self.dim}")
        return self


class GptModel(AttentionSpec):
    """Decoder of text (Radford et al. 2019): every token attends to itself and those before it; the vectors that tokens
    are read by are those that the next one is told by. Vocabulary and length come from the data."""

    kind: Literal["gpt"]
    dim: int = Field(default=128, ge=2, le=16384)
    num_layers: int = Field(default=4, ge=1, le=256)


class EncoderDecoderModel(AttentionSpec):
    """One sequence of tokens in, another one out (Vaswani et al. 2017): the decoder attends to what it has written, and
    to all of what the encoder read. Vocabularies and lengths come from the data."""

    kind: Literal["encoder_decoder"]


IMPORT_PATTERN = r"^((\./)?[\w-]+(/[\w-]+)*\.py|[\w-]+(\.[\w-]+)*):[A-Za-z_]\w*$"


def _check_path(path: str) -> str:
    if len(path) <= MAX_PATH_CHARS and re.fullmatch(IMPORT_PATTERN, path):
        return path
    raise ValueError(
        f"found {path[:80]!r}; must be model.py:build or nets/model.py:build, from the pipeline file's folder "
        "(which is what workers and replicas get, so no '..' and no absolute path), or package.module:build; "
        "move the module into that folder"
    )


ImportPath = Annotated[str, AfterValidator(_check_path), WithJsonSchema({"type": "string", "pattern": IMPORT_PATTERN})]
"""`model.py:build`, in the pipeline file's folder or below, or `package.module:build`."""


class ImportModel(ModelSpec):
    """Your own network: a function that returns an `nn.Module`, also of another library. Where forward gives a mapping,
    its `logits` are the answer."""

    kind: Literal["import"]
    path: ImportPath
    """`model.py:build` (in the pipeline file's folder or below) or `package.module:build`."""
    args: dict[str, Any] = {}
    """Keyword arguments for the function. It also receives `input_shape` (without the rows) and `num_outputs`
    where its signature names them."""


Model = Annotated[
    LinearModel
    | MlpModel
    | CnnModel
    | ResNetModel
    | AudioCnnModel
    | TransformerModel
    | GptModel
    | EncoderDecoderModel
    | ImportModel,
    Field(discriminator="kind"),
]
