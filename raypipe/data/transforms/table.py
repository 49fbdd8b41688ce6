"""Which class does what each `kind` of data.transforms asks for."""

from __future__ import annotations

from raypipe.data.transforms.audio import Level, LogMel
from raypipe.data.transforms.bag import BagOfWords
from raypipe.data.transforms.base import TransformKind
from raypipe.data.transforms.categorical import Cross, Hashing, OneHot, Ordinal
from raypipe.data.transforms.dates import DateParts
from raypipe.data.transforms.image import ChannelsFirst, Normalize, Resize
from raypipe.data.transforms.missing import Impute
from raypipe.data.transforms.ngrams import Ngrams
from raypipe.data.transforms.numeric import Bucketize, Clip, Log, MinMax, Robust, Scale, Standardize
from raypipe.data.transforms.pretrained import PretrainedTokens
from raypipe.data.transforms.text import Tokens

KINDS: dict[str, type[TransformKind]] = {
    "scale": Scale,
    "standardize": Standardize,
    "min_max": MinMax,
    "robust": Robust,
    "clip": Clip,
    "log": Log,
    "impute": Impute,
    "bucketize": Bucketize,
    "one_hot": OneHot,
    "ordinal": Ordinal,
    "hashing": Hashing,
    "date_parts": DateParts,
    "tokens": Tokens,
    "bag_of_words": BagOfWords,
    "pretrained_tokens": PretrainedTokens,
    "ngrams": Ngrams,
    "resize": Resize,
    "normalize": Normalize,
    "channels_first": ChannelsFirst,
    "log_mel": LogMel,
    "level": Level,
    "cross": Cross,
}
