"""What tasks share in which a network tells the next token at each place.  Shape letters: B rows, T places, V ids."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from raypipe.data import spelling
from raypipe.model.tasks.base import Task
from raypipe.records import Language, Signature

if TYPE_CHECKING:
    from torch import Tensor


class NextToken(Task):
    """A network gives a logit an id, at each of T places: [B, T, V] for a row of T answers."""

    target_dtype: ClassVar[Literal["int64", "float32"]] = "int64"

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        assert signature.language is not None, "a dataset version has it, and an artifact is refused without"
        self._language = signature.language
        self.num_outputs = self.num_ids(signature.language)
        self.target_shape = (signature.language.context_length,)
        self.wanted = f"the next of {self.num_outputs} tokens at each of {self.num_places} places"

    @staticmethod
    @abstractmethod
    def num_ids(language: Language) -> int:
        """Ids that the network tells apart are below this."""

    @property
    def num_places(self) -> int:
        return self.target_shape[0]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.target_shape, self.num_outputs)

    @staticmethod
    def read_output(output: Tensor) -> Tensor:
        return output


def language_problem(signature: Signature, *, shortest: int = 1) -> str:
    """What is wrong with the tokens of a signature, naming the field; empty: nothing.

    Args:
        shortest: context that can be told.
    """
    language = signature.language
    if language is None:
        return f"signature.language: none for task {signature.task}"
    if wrong := spelling.problem(language):
        return wrong
    if not shortest <= language.context_length <= spelling.MAX_TOKENS:
        return f"signature.language.context_length: {language.context_length}; it must be from {shortest} on"
    if signature.classes is not None or len(signature.inputs) != 1:
        return f"signature: classes or several inputs for task {signature.task}"
    return ""
