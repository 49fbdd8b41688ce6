"""A command as a Ray job on a cluster: submit, follow its log, give its exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.errors import ClusterError, SpecError
from raypipe.runtime.connect import ANY_ENV, PACKAGE, UPLOAD_EXCLUDES, first_line, passed_on, use_token_if_any

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

STATUS_POLL_S = 0.5
END_TIMEOUT_S = 60.0
"""Longest wait between the end of a job's log and its final status."""


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

    use_token_if_any()
    runtime_env: dict[str, Any] = {
        "working_dir": str(code_dir),
        "excludes": UPLOAD_EXCLUDES,
        "py_modules": [str(PACKAGE)],
        "env_vars": {**ANY_ENV, **passed_on(), **env},
    }
    with _answering(address):
        client = JobSubmissionClient(address)
    try:
        with _answering(address):
            job_id = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, metadata=dict(metadata))
    except ValueError as error:
        raise SpecError(f"{code_dir} cannot be sent to the cluster: {first_line(error)}") from None
    return Job(job_id, address, client)


def follow(job: Job, write: Callable[[str], None]) -> int:
    """Hand every line of the job's log to `write`, until it ends.

    Returns:
        The exit code of its command.
    Raises:
        ClusterError: the cluster stopped answering, or the job ended without running its command.
    """
    with _answering(job.address):
        asyncio.run(_tail(job, write))
        details = asyncio.run(_final_details(job))
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    if details.status == "SUCCEEDED":
        return 0
    reason = (details.message or "").strip().splitlines()
    raise ClusterError(
        f"job {job.job_id} ended as {details.status}: {reason[-1][:300] if reason else 'no reason given'}",
        f"ray job logs --address {job.address} {job.job_id}",
    )


async def _tail(job: Job, write: Callable[[str], None]) -> None:
    rest = ""
    async for text in job.client.tail_job_logs(job.job_id):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            write(line)
    if rest:
        write(rest)


async def _final_details(job: Job) -> Any:
    """The job's details once it has ended: its log may end a moment earlier."""
    for _ in range(int(END_TIMEOUT_S / STATUS_POLL_S)):
        details = job.client.get_job_info(job.job_id)
        if details.status.is_terminal():
            return details
        await asyncio.sleep(STATUS_POLL_S)
    raise ClusterError(f"job {job.job_id}: its log ended, but it still runs", job.stop_command)


@contextmanager
def _answering(address: str) -> Iterator[None]:
    """Ray's many ways to say that a cluster does not answer, as one."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except (AuthenticationError, ConnectionError, requests.RequestException, RuntimeError) as error:
        raise ClusterError(
            f"the cluster at {address} did not do it: {first_line(error)}",
            "check the address, and that RAY_AUTH_TOKEN or ~/.ray/auth_token is the cluster's token",
        ) from None
