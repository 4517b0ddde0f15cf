"""The error tree: equal to its drawing, each error retryable or permanent, and hints for user-facing errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import tallystream
from tallystream.agents.port_sink.errors import PortError
from tallystream.agents.port_sink.errors import PortFailureReason as PortWhy
from tallystream.schemas import errors
from tallystream.schemas.errors import (
    InvalidBodyError,
    MismatchError,
    PermanentError,
    RetryableError,
    TallystreamError,
    UnfitError,
    UnreachableError,
    UsageError,
    error_of_exit,
)
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.poller.errors import FailureReason as PollWhy
from tallystream.streams.poller.errors import PollError
from tallystream.supervisor.child import FirstStartError

ROOT = Path(__file__).parents[3]
BY_REASON = {RequestRefusedError, FirstStartError, PollError, PortError}
"""Errors whose instances, and not their class, say whether they are retryable."""
FOR_PEOPLE = {"UsageError", "UnreachableError", "MismatchError", "UnfitError"}


def exceptions() -> list[type[BaseException]]:
    found = set()
    for module in pkgutil.walk_packages(tallystream.__path__, "tallystream."):
        if module.name.endswith("__main__"):
            continue
        for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            private = member.__name__.startswith("_")  # never leaves its module, so other code does not depend on it
            if issubclass(member, BaseException) and member.__module__.startswith("tallystream.") and not private:
                found.add(member)
    return sorted(found, key=lambda kind: kind.__name__)


ALL = exceptions()


def drawn() -> dict[str, str]:
    """Return each class of the docstring's tree with its parent."""
    parents, path = {}, ["TallystreamError"]
    for line in (errors.__doc__ or "").splitlines():
        stem, bar, rest = line.partition("── ")
        if bar:
            depth = len(stem) // 4 + 1
            name = rest.split()[0]
            parents[name] = path[depth - 1]
            path[depth:] = [name]
    return parents


def test_documented_error_tree_matches_the_code() -> None:
    ours = {kind.__name__: kind.__bases__[0].__name__ for kind in ALL if kind is not TallystreamError}
    assert drawn() == ours


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_exception_belongs_to_the_error_tree(kind: type[BaseException]) -> None:
    assert kind.__name__.endswith("Error")
    assert issubclass(kind, TallystreamError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not TallystreamError], ids=lambda kind: kind.__name__)
def test_every_error_is_retryable_or_permanent(kind: type[TallystreamError]) -> None:
    assert sum(issubclass(kind, root) for root in (RetryableError, PermanentError, *BY_REASON)) == 1
    assert isinstance(vars(kind).get("code", kind.code), str)


def test_no_two_errors_share_a_name() -> None:
    names = [kind.__name__ for kind in ALL]
    assert len(names) == len(set(names))


def test_reason_decides_if_an_error_is_retryable() -> None:
    polls = {why: PollError(why, "it failed").retryable for why in PollWhy}
    assert {why for why, again in polls.items() if again} == {
        PollWhy.RATE_LIMITED, PollWhy.SERVER_ERROR, PollWhy.TIMEOUT, PollWhy.CONNECTION,
    }  # fmt: skip
    port = {why: PortError(why, "it failed").retryable for why in PortWhy}
    assert {why for why, again in port.items() if not again} == {
        PortWhy.NOT_FOUND, PortWhy.TOO_LARGE, PortWhy.REJECTED,
    }  # fmt: skip
    assert [RequestRefusedError(status, "no").retryable for status in (400, 401, 404, 413, 503)] == [
        False, False, False, False, True,
    ]  # fmt: skip


def test_exit_code_of_a_component_gives_its_error() -> None:
    assert [error_of_exit(code) for code in (2, 3, 4, 1, 70, None)] == [
        UsageError, UnreachableError, MismatchError, UnfitError, UnfitError, UnfitError,
    ]  # fmt: skip
    assert FirstStartError("sink", 3, "Kafka is away", "start it").retryable
    assert not FirstStartError("sink", 2, "no such option", "see --help").retryable


def test_transient_errors_exit_with_3() -> None:
    assert PortError(PortWhy.UNANSWERED, "no answer").exit_code == 3
    assert PortError(PortWhy.REJECTED, "refused").exit_code == 1
    assert PortError(PortWhy.CREDENTIALS, "people have to put it right").exit_code == 1
    assert PollError(PollWhy.TIMEOUT, "no answer").exit_code == 3
    assert InvalidBodyError("not JSON").exit_code == 1


def test_user_facing_errors_have_a_hint() -> None:
    without = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("schemas", "streams", "agents", "src")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in FOR_PEOPLE
        and len(node.args) + len(node.keywords) < 2
    ]
    assert without == []
