"""What is done to columns of texts: one variant a transform."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.transform_spec import TransformSpec

TextMisfit = Literal["empty", "too_long", "unknown"]


class TokensTransform(TransformSpec):
    """A text -> its tokens' ids [max_length], whole numbers in float32: a network casts with `.long()`.

    0 is padding behind the text, 1 an unknown token; a longer text is cut at the end, unless `refuse` says otherwise.
    Nothing is normalised but case.
    """

    kind: Literal["tokens"]
    tokenizer: Literal["char", "byte", "word", "bpe"]
    """`char`: Unicode code points. `byte`: UTF-8. `word`: runs of letters, digits and `_`; every other sign but white
    space by itself; over 64 characters it is unknown. `bpe`: byte pairs merged within words, fitted on train (Sennrich
    et al. 2016), so that nothing is unknown. The latter two read the first 64 x max_length characters of a text."""
    max_length: int = Field(ge=1, le=2**20)
    """Tokens a row."""
    max_vocabulary: int | None = Field(default=None, ge=3, le=2**24)
    """All ids are below this, so it is how many embeddings a network needs: the most frequent tokens of train, or as
    many merges as fit. For every tokenizer but `byte`, whose ids are below 258."""
    lowercase: bool = False
    """Whether upper and lower case are one token."""
    refuse: list[TextMisfit] = []
    """Texts that are refused, in training, batch inference and requests alike: `empty` without a token, `too_long`
    with more than `max_length`, `unknown` with a token that train has not. Unset, with `data.task:
    sequence_to_sequence`: all three, but for the unknown words of tokenizer: word."""
    merges: list[tuple[int, int]] | None = Field(default=None, exclude=True, repr=False)
    """What `bpe` has learned already; filled in when the data is prepared, where a text is cut by it."""

    @model_validator(mode="after")
    def vocabulary_fits_the_tokenizer(self) -> Self:
        if self.tokenizer == "byte":
            if self.max_vocabulary is not None:
                raise ValueError("max_vocabulary: the ids of tokenizer: byte are always below 258; leave it out")
        elif self.max_vocabulary is None:
            raise ValueError(f"tokenizer: {self.tokenizer} needs max_vocabulary, e.g. 8192")
        elif self.tokenizer == "bpe" and self.max_vocabulary < 258:
            raise ValueError(
                f"max_vocabulary: found {self.max_vocabulary}; tokenizer: bpe has 258 ids before the first merge"
            )
        return self


class BagOfWordsTransform(TransformSpec):
    """A list of texts (tags, words) -> how often each known one occurs, one column a text."""

    kind: Literal["bag_of_words"]
    max_words: int = Field(default=1000, ge=1, le=50_000)
    """The most frequent of train are known, in sorted order; others are not counted."""
    lowercase: bool = False
    """Whether upper and lower case are one word."""


class PretrainedTokensTransform(TransformSpec):
    """A text -> the ids [max_length] of the tokens of a tokenizer that was trained elsewhere, whole numbers in float32.

    Needs `raypipe[tokenizers]`. What the file holds goes with the dataset version and the model. Of a text the first
    64 x max_length characters are read; longer ones are cut at the end as the tokenizer itself cuts them.
    """

    kind: Literal["pretrained_tokens"]
    file: str = Field(min_length=1)
    """A `tokenizer.json` as Hugging Face's libraries write it; a path as in `source.path`. It may hold no part that is
    code, and refer to nothing outside."""
    max_length: int = Field(ge=1, le=2**16)
    """Tokens a row, its special ones among them."""
    special_tokens: bool = True
    """Whether those that the file puts around a text ([CLS], </s>) are there."""
    ids: Literal["shifted", "file"] = "shifted"
    """`shifted`: one more than in the file, and 0 is padding, as networks of `model.kind: transformer` want it. `file`:
    as in the file, and its own token is padding, for a network that was trained with it."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Digest that the file must have; unset: that of the file as it is."""
    content: str | None = Field(default=None, exclude=True, repr=False)
    """What the file holds; filled in when the data is prepared."""


class NgramsTransform(TransformSpec):
    """A text -> how often its n-grams occur, weighted: the classical features of text, as scikit-learn's
    TfidfVectorizer, CountVectorizer and HashingVectorizer give them. Of a text the first 262,144 characters are read.
    """

    kind: Literal["ngrams"]
    analyzer: Literal["word", "char", "char_wb"] = "word"
    """What n-grams are made of. `word`: runs of two or more letters, digits and `_`. `char`: characters. `char_wb`:
    characters within words, a blank before and behind each."""
    ngram_range: tuple[Annotated[int, Field(ge=1, le=16)], Annotated[int, Field(ge=1, le=16)]] = (1, 1)
    """Fewest and most of these in an n-gram; [1, 2] is single ones and pairs."""
    lowercase: bool = True
    """Whether upper and lower case are one."""
    max_features: int | None = Field(default=None, ge=1, le=50_000)
    """The n-grams of train that occur most often (`binary`: in most rows), one column each, in sorted order; an
    unknown one counts nowhere."""
    num_buckets: int | None = Field(default=None, ge=2, le=2**18)
    """Instead of `max_features`: a stable hash (MurmurHash3) spreads all n-grams over this many columns, so that none
    is unknown and no list is kept."""
    signed: bool = False
    """With `num_buckets` and `weight: count`: half of the n-grams count down, so that those that share a bucket cancel
    out in the mean."""
    weight: Literal["tf_idf", "count", "binary"] = "tf_idf"
    """`tf_idf`: count * (1 + ln((1 + rows) / (1 + rows that hold it))), rows of train. `binary`: 1 where it occurs."""
    sublinear: bool = False
    """Whether 1 + ln(count) stands for a count."""
    norm: Literal["l2", "l1", "none"] = "l2"
    """What is made 1 in each row: the sum of squares, the sum of values, or nothing."""
    min_rows: int = Field(default=1, ge=1)
    """An n-gram of fewer train rows is left out of the vocabulary."""
    max_rows_frac: float = Field(default=1.0, gt=0, le=1)
    """One of more than this share of the train rows is left out as well."""

    @model_validator(mode="after")
    def fields_fit_together(self) -> Self:
        if (self.max_features is None) == (self.num_buckets is None):
            raise ValueError("give either `max_features` (a vocabulary) or `num_buckets` (a hash), e.g. 4096")
        if self.ngram_range[0] > self.ngram_range[1]:
            raise ValueError(f"ngram_range: found {list(self.ngram_range)}; the first must not exceed the second")
        if self.signed and (self.num_buckets is None or self.weight != "count" or self.sublinear):
            raise ValueError("signed goes with num_buckets and weight: count, without sublinear")
        if self.num_buckets is not None and (self.min_rows > 1 or self.max_rows_frac < 1):
            raise ValueError("min_rows and max_rows_frac choose a vocabulary; with num_buckets there is none")
        if self.weight == "binary" and self.sublinear:
            raise ValueError("sublinear changes counts; with weight: binary there are none")
        return self
