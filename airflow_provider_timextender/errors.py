"""The errors of this package: one tree, so that a caller can tell what happened by the type.

Two families never mix: a :class:`JobError` says what became of a job; all others say that it could not
be found out, or not be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar, Self

from airflow_provider_timextender.naming import Named, said


class TimeXtenderError(Exception):
    """Base of everything that this package raises about TimeXtender.

    :ivar job_id: the job that it is about; ``None`` if it is about none, or not known about which.
    :ivar job_name: likewise. :ivar trigger_id: the execution that it is about, if it is about one.
    """

    job_id: str | None = None
    job_name: str | None = None
    trigger_id: str | None = None

    transient: ClassVar[bool] = False
    """The same read may well succeed a moment later."""

    retry_helps: bool = True
    """A later try of the Airflow task can end differently, and does no harm."""

    retry_after: float | None = None
    """Seconds for which the server asked to be left alone, ``None`` if it did not."""

    mendable: ClassVar[bool] = False
    """What has worked before can be made to work again: a connection, or a gateway that restarts."""

    of_poll: bool = False
    """A poll has met it, for all that wait; whatever it is, it is borne like what is mendable."""

    @property
    def may_pass(self) -> bool:
        """Whether a wait bears it for a while, once a look has succeeded."""
        return self.transient or self.mendable or self.of_poll

    @property
    def reason(self) -> str:
        """What it says, without the job that it is about."""
        return super().__str__()

    def __str__(self) -> str:
        """Return the name of the job, the reason, and the ids."""
        return said(self.reason, self)

    def about(self, of: Named) -> Self:
        """Tell which job it is about, and which execution, as far as that is not known already."""
        self.job_id = self.job_id or of.job_id
        self.job_name = self.job_name or of.job_name
        self.trigger_id = self.trigger_id or of.trigger_id
        return self


@contextmanager
def about(of: Callable[[], Named]) -> Iterator[None]:
    """Let each error tell which job it is about.

    :param of: asked when there is one.
    """
    try:
        yield
    except TimeXtenderError as error:
        error.about(of())
        raise


class InvalidInput(TimeXtenderError, ValueError):
    """An argument or a connection field is unusable; nothing was sent."""

    retry_helps = False
    mendable = True


class Unreachable(TimeXtenderError):
    """No answer arrived: DNS, refused connection, reset or timeout.

    :ivar sent: whether the request may have reached the server.
    """

    transient = True

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class BadCertificate(Unreachable):
    """The server's TLS certificate is not trusted; nothing was sent."""

    transient = False

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=False)


class Refused(TimeXtenderError):
    """The API said no: bad key, unknown job, bad request, or a redirect, which is never followed.

    :ivar status: the HTTP status code, ``None`` if it is not known any more.
    """

    retry_helps = False
    mendable = True

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def of_the_key(self) -> bool:
        """Whether it was the API key that was refused."""
        return self.status in (401, 403)


class Unavailable(TimeXtenderError):
    """The server answered that it cannot serve now."""

    transient = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """HTTP 429."""


class ServerError(Unavailable):
    """HTTP 5xx."""


class ContractError(TimeXtenderError):
    """The answer is readable, but it is not what the API promises, or says what is in no table."""

    retry_helps = False


class UnreadableAnswer(ContractError):
    """A success status without the JSON expected: an HTML page of a proxy, or a cut body."""

    transient = True
    retry_helps = True


class AnswerTooLarge(ContractError):
    """The answer is larger than what is read of one, and will not be smaller the next time."""


class SubmissionUncertain(TimeXtenderError):
    """The request to start a job may have arrived, and nobody knows.

    Sending it again could run the load twice.
    """

    retry_helps = False


class JobBusy(TimeXtenderError):
    """The job is pending or running, so that it was not started beside that; nothing was sent."""


class ExecutionNotFound(TimeXtenderError):
    """No execution stands under the trigger id."""


class LogsIncomplete(TimeXtenderError):
    """The logs of some of several jobs could not be read.

    :ivar failures: why, for each of them.
    """

    def __init__(self, message: str, failures: Sequence[TimeXtenderError]) -> None:
        told = "".join(f"\n  {failure}" for failure in failures)
        super().__init__(f"{message}{told}")
        self.failures = tuple(failures)
        self.retry_helps = any(failure.retry_helps for failure in failures)


class OutputRefused(TimeXtenderError):
    """An incremental output is not written, as rows would be lost, or be in two outputs."""

    def __init__(self, message: str, *, retry_helps: bool = False) -> None:
        super().__init__(message)
        self.retry_helps = retry_helps


class WaitTimeout(TimeXtenderError):
    """The limit of a wait is over, and what was waited for is not; it runs on in TimeXtender."""


class TriggerLost(TimeXtenderError):
    """The trigger that waited ended without an answer; nothing is known about the job."""


class ExecutionTimeout(WaitTimeout):
    """The task's ``execution_timeout`` is over, or will be before the next look."""


class JobError(TimeXtenderError):
    """What became of a job, as TimeXtender tells it: the opposite of "could not look".

    What a callback may want to know of it stands in attributes, wherever the wait was.

    :ivar message: TimeXtender's own, or why the job counts as never started; its first 500 characters, about.
    :ivar error_lines: the last error lines of the execution's log, of 1,400 characters together, about.
    :ivar start: when the execution began, in UTC; ``None`` if unknown. :ivar end: likewise.
    """

    def __init__(
        self,
        message: str,
        *,
        error_lines: Sequence[str] = (),
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_lines = tuple(error_lines)
        self.start = start
        self.end = end


class JobNeverStarted(JobError):
    """The job was queued, is idle, and no execution showed up within the start timeout."""


class JobFailed(JobError):
    """TimeXtender says that the execution failed."""

    def __str__(self) -> str:
        """Return the name of the job, TimeXtender's message, the last error lines, and the ids."""
        lines = "".join(f"\n  {line}" for line in self.error_lines)
        return said(f"failed: {self.reason}{f'{LAST_LINES}{lines}' if lines else ''}", self, joint=" ")


LAST_LINES = "\nIts last error lines:"


def named(name: str) -> type[TimeXtenderError] | None:
    """Return the error class of that name, ``None`` if there is none."""
    kinds = [TimeXtenderError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        if kind.__name__ == name:
            return kind
    return None
