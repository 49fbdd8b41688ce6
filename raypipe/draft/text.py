"""A text -> a pipeline file: a small GPT that writes like it, one token a character."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from raypipe.data.sources.files import open_text
from raypipe.data.sources.listing import list_files
from raypipe.draft.written import Written, flow
from raypipe.errors import SpecError
from raypipe.spec.sources import TextWindowsSource

READ_BYTES = 2**20
"""Of the first file, to count characters."""

MIN_CHARS = 2_000

SHARE_OF_SINGLE = 0.6
"""Of the perplexity that the frequencies of single characters give: what must be reached."""


def draft_text(source: TextWindowsSource, there: str) -> Written:
    """Args:
        source: where the files are; there: the same, as the pipeline file names it.
    Raises:
        SpecError: the text is too short to learn from.
    """
    files = list_files(source, ".")
    with open_text(files[0]) as stream:
        text = stream.read(READ_BYTES).decode("utf-8", "replace")
    if len(text) < MIN_CHARS:
        raise SpecError(
            f"{files[0].name} begins with {len(text)} characters; a language model needs at least {MIN_CHARS} to learn "
            "from",
            "name a longer text; for texts with labels name a table (CSV, JSON lines) with a column of each",
        )
    about_chars = max(len(text), sum(file.size_bytes or 0 for file in files))
    context = 64 if about_chars >= 50_000 else 32
    counts = Counter(text)
    entropy = -sum(count / len(text) * math.log(count / len(text)) for count in counts.values())
    most = max(2.0, SHARE_OF_SINGLE * math.exp(entropy))
    fields: dict[str, Any] = {"format": "text_windows", "path": there, "context_length": context}
    epochs = max(1, min(30, round(2_200_000 / about_chars)))
    return Written(
        about="A text -> a model that writes like it, one character after another.",
        data=[
            "task: language_model",
            f"source: {flow(fields, 4)} # about {about_chars:,} characters",
            "split: {val_frac: 0.05, test_frac: 0.05} # contiguous: the end of each file is not learned from",
        ],
        model="{kind: gpt, dim: 96, num_layers: 3, num_heads: 4}",
        model_note="guessed for minutes on two cores; larger ones write better",
        train=[
            f"epochs: {epochs}",
            "global_batch_size: 16",
            "optimizer: {kind: adamw, lr: 0.004, weight_decay: 0.1, betas: [0.9, 0.99]}",
            "schedule: {kind: cosine}",
            "clip_grad_norm: 1.0",
        ],
        gates=[
            f"{{metric: perplexity, max: {most:.1f}}} # guessed; the frequencies of single characters give "
            f"{math.exp(entropy):.1f}"
        ],
        request={"text": text[: context // 2]},
        guesses=["model"],
    )
