"""Handlers by task type, apart from any worker, so that a module of tasks can be loaded by name."""

from __future__ import annotations

import enum
import importlib
import inspect
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, Self, TypeVar

from meshq.contract.limits import NAME_PATTERN, NAME_RULE
from meshq.worker.arguments import Arguments

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_ATTRIBUTE = "registry"


class Place(enum.Enum):
    """Where a handler runs."""

    LOOP = "loop"
    THREAD = "thread"
    PROCESS = "process"


class Handler:
    """A function that runs tasks of one type.

    Attributes:
        type: The task type.
        function: What is called.
        place: Where it runs.
        no_retry: The exceptions after which another attempt is useless.
        auto_heartbeat: Whether the worker gives signs of life while it runs.
        arguments: How its arguments are made from a task's input.
    """

    __slots__ = ("arguments", "auto_heartbeat", "function", "no_retry", "place", "type")

    def __init__(
        self,
        type: str,  # noqa: A002 - the field's name
        function: Callable[..., Any],
        place: Place,
        no_retry: tuple[type[BaseException], ...] = (),
        *,
        auto_heartbeat: bool = False,
    ) -> None:
        self.type = type
        self.function = function
        self.place = place
        self.no_retry = no_retry
        self.auto_heartbeat = auto_heartbeat
        self.arguments = Arguments(function)

    def reference(self) -> bytes:
        """How another process finds the handler.

        Raises:
            TypeError: It cannot be found: the function, or an exception in `no_retry`, is not at the top
                level of its module.
        """
        try:
            return pickle.dumps((self.function, self.no_retry, self.auto_heartbeat))
        except (pickle.PicklingError, AttributeError) as error:
            raise TypeError(
                f"a handler for processes must be at the top level of its module: {error}"
            ) from None

    @classmethod
    def referred(cls, type: str, reference: bytes) -> Self:  # noqa: A002 - the field's name
        """The handler that another process refers to."""
        function, no_retry, auto_heartbeat = pickle.loads(reference)  # noqa: S301 - the worker's own words
        return cls(type, function, Place.PROCESS, no_retry, auto_heartbeat=auto_heartbeat)


class TaskRegistry:
    """Handlers by task type.

    ```python
    registry = TaskRegistry()

    @registry.task("word_count")
    def word_count(text: str) -> dict[str, int]:
        return {"word_count": len(text.split())}
    ```
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def task(
        self,
        type: str | None = None,  # noqa: A002 - the field's name
        *,
        processes: bool = False,
        no_retry: Sequence[type[BaseException]] = (),
        auto_heartbeat: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register a function as the handler of a task type; the function itself stays as it is.

        Coroutine functions run in the worker's event loop for handlers, plain functions in threads.

        Args:
            type: The task type; the function's name if None.
            processes: Whether it runs in a process of its own, for work that needs a core and for work
                that can be killed. The function must be at the top level of its module.
            no_retry: Exceptions after which the task has failed, whatever attempts it has left.
            auto_heartbeat: Whether the worker gives signs of life for tasks with a heartbeat_timeout, as
                long as the handler runs. They say that its process lives, not that it gets on.
        """

        def register(function: Callable[P, R]) -> Callable[P, R]:
            self.add(
                type or function.__name__,
                function,
                processes=processes,
                no_retry=no_retry,
                auto_heartbeat=auto_heartbeat,
            )
            return function

        return register

    def add(
        self,
        type: str,  # noqa: A002 - the field's name
        function: Callable[..., Any],
        *,
        processes: bool = False,
        no_retry: Sequence[type[BaseException]] = (),
        auto_heartbeat: bool = False,
    ) -> None:
        """Register a handler without the decorator.

        Raises:
            ValueError: The type breaks its rule, or has a handler already.
            TypeError: The function cannot be a handler, or `no_retry` holds something else than classes
                of exceptions.
        """
        if not NAME_PATTERN.fullmatch(type):
            raise ValueError(f"task type {type!r} {NAME_RULE}")
        if type in self._handlers:
            raise ValueError(f"task type {type!r} has a handler already")
        place = _place(function, processes)
        errors = _exceptions(no_retry)
        self._handlers[type] = Handler(type, function, place, errors, auto_heartbeat=auto_heartbeat)

    def include(self, other: TaskRegistry) -> None:
        """Take over all handlers of another registry.

        Raises:
            ValueError: A type has a handler already.
        """
        for handler in other:
            if handler.type in self._handlers:
                raise ValueError(f"task type {handler.type!r} has a handler already")
            self._handlers[handler.type] = handler

    def get(self, type: str) -> Handler | None:  # noqa: A002 - the field's name
        """The handler of a type, if there is one."""
        return self._handlers.get(type)

    @property
    def types(self) -> tuple[str, ...]:
        """The task types, in order of registration."""
        return tuple(self._handlers)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)


def load(name: str) -> TaskRegistry:
    """The registry at `module` or `module:attribute`; the attribute is `registry` unless named.

    Raises:
        LookupError: There is no such module or registry; the message says which.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise LookupError(f"{name}: {error}") from error
    found = getattr(module, attribute or DEFAULT_ATTRIBUTE, None)
    if not isinstance(found, TaskRegistry):
        raise LookupError(  # noqa: TRY004 - a name was looked up
            f"{name}: {module_name} has no TaskRegistry {attribute or DEFAULT_ATTRIBUTE!r}"
        )
    return found


def _place(function: Callable[..., Any], processes: bool) -> Place:
    coroutine = inspect.iscoroutinefunction(function)
    if not processes:
        return Place.LOOP if coroutine else Place.THREAD
    if coroutine:
        raise TypeError(f"{function.__qualname__} is a coroutine function and cannot run in a process")
    return Place.PROCESS


def _exceptions(classes: Sequence[object]) -> tuple[type[BaseException], ...]:
    found = []
    for item in classes:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise TypeError(f"no_retry must hold classes of exceptions, not {item!r}")
        found.append(item)
    return tuple(found)
