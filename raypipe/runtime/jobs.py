"""A command as a Ray job on a cluster: submit, follow its log, give its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.errors import ClusterError, SpecError
from raypipe.runtime.connect import first_line, use_token_if_any
from raypipe.runtime.environment import ANY_ENV, passed_on
from raypipe.runtime.sending import PACKAGE, UPLOAD_EXCLUDES, sending
from raypipe.spec.addresses import refuse_userinfo

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

STATUS_POLL_S = 0.5
SILENCE_S = 60.0
"""A log without a new line for so long is asked for again: a connection that was cut looks like a quiet job."""


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        job_id: Ray's submission id.
        address: the cluster's dashboard.
    """

    job_id: str
    address: str
    client: JobSubmissionClient

    @property
    def stop_command(self) -> str:
        """What ends it."""
        return f"ray job stop --address {self.address} {self.job_id}"

    @property
    def logs_command(self) -> str:
        """What shows its log, and follows it while it runs."""
        return f"ray job logs --address {self.address} --follow {self.job_id}"


def submit(
    address: str,
    entrypoint: str,
    *,
    code_dir: Path,
    env: Mapping[str, str],
    metadata: Mapping[str, str],
) -> Job:
    """Start a command on a cluster, with a folder as its working directory and this raypipe.

    Args:
        address: the dashboard's URL, e.g. `http://head:8265`.
        env: variables of the job, beside PASSED_ON and what makes small runs fast.
    Raises:
        ClusterError: the cluster does not answer, or does not let us in.
        SpecError: the folder is too large to send, or the job cannot be what it is.
    """
    from ray.job_submission import JobSubmissionClient

    refuse_userinfo("--address", address)
    use_token_if_any()
    runtime_env: dict[str, Any] = {
        "working_dir": str(code_dir),
        "excludes": UPLOAD_EXCLUDES,
        "py_modules": [str(PACKAGE)],
        "env_vars": {**ANY_ENV, **passed_on(), **env},
    }
    what = f"the cluster at {address} did not do it"
    hint = "check the address, and that RAY_AUTH_TOKEN or ~/.ray/auth_token is the cluster's token"
    with _answering(what, hint):
        client = JobSubmissionClient(address)
    try:
        with _answering(what, hint), sending(code_dir):
            job_id = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, metadata=dict(metadata))
    except ValueError as error:
        raise SpecError(f"{code_dir} cannot be sent to the cluster: {first_line(error)}") from None
    return Job(job_id, address, client)


def follow(job: Job, write: Callable[[str], None]) -> int:
    """Hand every line of the job's log to `write`, until it ends.

    Returns:
        The exit code of its command.
    Raises:
        ClusterError: the cluster stopped answering (the job goes on), or the job ended without running its command.
    """
    details = asyncio.run(_follow(job, _Lines(write)))
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    if details.status == "SUCCEEDED":
        return 0
    reason = (details.message or "").strip().splitlines()
    raise ClusterError(
        f"job {job.job_id} ended as {details.status}: {reason[-1][:300] if reason else 'no reason given'}",
        job.logs_command,
    )


async def _follow(job: Job, lines: _Lines) -> Any:
    """Read the log until the job has ended; its details. A stream that closes before that is opened again."""
    while True:
        await _read(job, lines)
        with _answering(f"lost the cluster at {job.address}; job {job.job_id} goes on there", job.logs_command):
            details = job.client.get_job_info(job.job_id)
        if details.status.is_terminal():
            break
        await asyncio.sleep(STATUS_POLL_S)  # so that a stream that breaks at once is not opened without a pause
    with suppress(*_unanswered()):  # the node that kept the log may be gone, and the job's end is known
        lines.take(job.client.get_job_logs(job.job_id), 0)
    lines.end()
    return details


async def _read(job: Job, lines: _Lines) -> None:
    """One stream of the log, from its start until it closes, breaks, or is silent for so long that it may be dead."""
    position = 0
    opened: Any = job.client.tail_job_logs(job.job_id)
    async with aclosing(opened) as stream:
        while True:
            try:
                text = await asyncio.wait_for(anext(stream, None), SILENCE_S)
            except _unanswered():
                return
            if text is None:
                return
            lines.take(text, position)
            position += len(text)


class _Lines:
    """Puts a log together from streams that each begin at its start; every line is written once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._known = 0
        self._rest = ""

    def take(self, text: str, position: int) -> None:
        """A piece of the log, and how many characters of it come before."""
        new = text[max(0, self._known - position) :]
        self._known += len(new)
        *lines, self._rest = (self._rest + new).split("\n")
        for line in lines:
            self._write(line)

    def end(self) -> None:
        """No more will come."""
        if self._rest:
            self._write(self._rest)


def _unanswered() -> tuple[type[Exception], ...]:
    """Ray's many ways to say that a cluster does not answer."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    http = (aiohttp.ClientError, requests.RequestException, AuthenticationError)
    return (*http, ConnectionError, TimeoutError, asyncio.TimeoutError, RuntimeError)


@contextmanager
def _answering(what: str, hint: str) -> Iterator[None]:
    """All of them as one error: what was not done, and what to do next."""
    try:
        yield
    except _unanswered() as error:
        raise ClusterError(f"{what}: {first_line(error)}", hint) from None
