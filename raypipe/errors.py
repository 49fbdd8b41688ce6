"""Every error raypipe raises on purpose.

    RaypipeError                     exit  meaning
    ├── SpecError                    2     the pipeline file or a command's words are wrong
    │   └── ResourceError            2     the file asks for more than the cluster can ever place
    ├── DataError                    3     the data does not hold what the file promises
    │   ├── SourceChanged            3     a source file changed while the run read it
    │   └── GateError                3     the model did not pass its gates; nothing was registered
    ├── ModelError                   2     a model cannot be built, or does not fit the data
    │   └── ArtifactError            1     a packaged model is damaged or not loadable here
    ├── TrainingError                1     training failed
    │   ├── UserCodeError            2     the model's own code raised
    │   ├── NonFiniteLossError       3     the loss became NaN or infinite
    │   ├── NotFiniteError           1     a trained model answers NaN or infinity
    │   ├── CheckpointError          1     a checkpoint is damaged or missing
    │   ├── PreemptedError           4     the machine is taken away; the training goes on elsewhere
    │   └── MoreWorkersError         4     there is room for more workers; the training goes on with them
    ├── StoreError                   4     storage did not answer; the same call may go through later
    │   ├── StoreAccessError         2     wrong address, bucket or credentials: waiting does not help
    │   ├── ObjectMissing            1     an object that must exist is not there
    │   ├── ObjectExists             1     write-if-absent lost: somebody was first
    │   ├── ObjectChanged            1     write-if-unchanged lost: the object moved on
    │   ├── DigestMismatch           1     bytes read back are not the bytes written
    │   └── DocumentError            1     a stored document is damaged, or of another version of raypipe
    ├── RegistryError                2     no such model, version or alias
    │   └── AliasMoved               4     the alias moved since it was read
    ├── ClusterError                 4     the cluster did not answer or did not start in time
    ├── ServeError                   1     the endpoint did not come up
    │   └── PortInUseError           2     another program listens on the port
    └── RequestError                 2     a client's request is wrong (HTTP 4xx); carries the status

Each carries a message (where, what was found, what must hold) and a hint (what
to do next).  An error is rebuilt from its arguments, so that it keeps its type
across a Ray process.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import ClassVar

_USERINFO = re.compile(
    r"([\w+.-]:/{1,3})"
    r"(?:[^/\s'\"<>]{0,2048}(?:@|%40)"  # user:password@host
    # a password that holds a slash; after a host comes a port
    r"|[^/\s:@]{1,2048}:(?!\d+(?:[/?#\s'\"]|$))[^\s'\"<>]{0,2048}@)"
)
"""No repetition without an end: a text of somebody else's must not cost the square of its length."""

_QUERY = re.compile(r"(\bhttps?://[^\s?'\"<>]{0,2048})\?[^\s'\"<>]*")


def masked(text: str, *, queries: bool = True) -> str:
    """`text` with what may be secret left out of every address in it: user names, passwords, queries of http(s)."""
    if "@" in text or "%40" in text:
        text = _USERINFO.sub(r"\1", text)
    return _QUERY.sub(r"\1", text) if queries and "?" in text else text


class RaypipeError(Exception):
    """Base of all errors raised on purpose. Addresses in its texts are masked, whatever they were made from.

    Args:
        message: where, what was found, what must hold; never a secret.
        hint: what to do next, one line.
    """

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False
    """Whether the same call may succeed later with nothing changed."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = masked(message)
        self.hint = masked(hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\ntry: {self.hint}" if self.hint else self.message


class SpecError(RaypipeError):
    exit_code = 2


class ResourceError(SpecError):
    pass


class DataError(RaypipeError):
    exit_code = 3


class SourceChanged(DataError):
    pass


class GateError(DataError):
    pass


class ModelError(RaypipeError):
    exit_code = 2


class ArtifactError(ModelError):
    exit_code = 1


class TrainingError(RaypipeError):
    pass


class UserCodeError(TrainingError):
    exit_code = 2


class NonFiniteLossError(TrainingError):
    exit_code = 3


class NotFiniteError(TrainingError):
    pass


class CheckpointError(TrainingError):
    pass


class PreemptedError(TrainingError):
    exit_code = 4
    transient = True


class MoreWorkersError(TrainingError):
    exit_code = 4
    transient = True


class StoreError(RaypipeError):
    exit_code = 4
    transient = True


class StoreAccessError(StoreError):
    exit_code = 2
    transient = False


class ObjectMissing(StoreError):
    exit_code = 1
    transient = False


class ObjectExists(StoreError):
    exit_code = 1
    transient = False


class ObjectChanged(StoreError):
    exit_code = 1
    transient = False


class DigestMismatch(StoreError):
    exit_code = 1
    transient = False


class DocumentError(StoreError):
    exit_code = 1
    transient = False


class RegistryError(RaypipeError):
    exit_code = 2


class AliasMoved(RegistryError):
    exit_code = 4


class ClusterError(RaypipeError):
    exit_code = 4
    transient = True


class ServeError(RaypipeError):
    pass


class PortInUseError(ServeError):
    exit_code = 2


class RequestError(RaypipeError):
    """A client's request that cannot be answered.

    Args:
        status: the HTTP status to answer with.
        code: a word for programs; empty: the one that goes with the status.
        headers: that the answer carries, e.g. Allow or Retry-After.
    """

    exit_code = 2

    def __init__(
        self, message: str, hint: str = "", status: int = 400, code: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint)
        self.args = (self.message, self.hint, status, code, dict(headers or {}))
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it wraps, outermost first, as Ray (`cause`) and Python (`raise ... from`) keep it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        wrapped = getattr(error, "cause", None)
        error = wrapped if isinstance(wrapped, BaseException) else error.__cause__


def find_known(error: BaseException | None) -> RaypipeError | None:
    """Our own error inside whatever Ray wrapped it in, or that was being handled; None when there is none."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        for inner in causes(waiting.pop(0)):
            if id(inner) in seen:
                break
            seen.add(id(inner))
            # Ray's RayTaskError is also an instance of what it wraps, but without its attributes.
            if isinstance(inner, RaypipeError) and "message" in vars(inner):
                return inner
            waiting.append(getattr(inner, "controller_failure", None))  # Ray Train: of its controller
            failures = getattr(inner, "worker_failures", None)  # Ray Train: by rank
            if isinstance(failures, dict):
                waiting += [failures[rank] for rank in sorted(failures)]
            if not inner.__suppress_context__:
                waiting.append(inner.__context__)
    return None


MAX_COMPARED = 10_000
"""Names that a word is compared with at most: a folder may hold a million, at 28 microseconds each."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?`, or nothing when no name is close."""
    if len(word) > 100:  # comparing costs the square of it
        return ""
    close = difflib.get_close_matches(word, list(islice(known, MAX_COMPARED)), n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""


def one_line(text: str) -> str:
    """`text` as one line that a terminal only shows: what would move its cursor, colour, reorder, hide or break it is
    written as JSON writes it (`\\u001b`, `\\n`, `\\u202e`), so that a JSON document stays the same document.

    For all text that comes from a user, a file, the network or another machine: printed as it is, it could forge a line
    of ours or drive the terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(json.dumps(char)[1:-1] if unicodedata.category(char) in UNSHOWN else char for char in text)


UNSHOWN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Unicode's control, format, surrogate, line and paragraph separator characters."""
