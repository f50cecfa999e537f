"""Handlers by task type, apart from any worker, so that a module of tasks can be loaded by name."""

from __future__ import annotations

import enum
import importlib
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

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
        arguments: How its arguments are made from a task's input.
    """

    __slots__ = ("arguments", "function", "place", "type")

    def __init__(self, type: str, function: Callable[..., Any], place: Place) -> None:  # noqa: A002
        self.type = type
        self.function = function
        self.place = place
        self.arguments = Arguments(function)


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
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register a function as the handler of a task type; the function itself stays as it is.

        Coroutine functions run in the worker's event loop for handlers, plain functions in threads.

        Args:
            type: The task type; the function's name if None.
            processes: Whether it runs in a process of its own, for work that needs a core and for work
                that can be killed. The function must be at the top level of its module.
        """

        def register(function: Callable[P, R]) -> Callable[P, R]:
            self.add(type or function.__name__, function, processes=processes)
            return function

        return register

    def add(self, type: str, function: Callable[..., Any], *, processes: bool = False) -> None:  # noqa: A002
        """Register a handler without the decorator.

        Raises:
            ValueError: The type breaks its rule, or has a handler already.
            TypeError: The function cannot be a handler.
        """
        if not NAME_PATTERN.fullmatch(type):
            raise ValueError(f"task type {type!r} {NAME_RULE}")
        if type in self._handlers:
            raise ValueError(f"task type {type!r} has a handler already")
        place = _place(function, processes)
        self._handlers[type] = Handler(type, function, place)

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


def reference(function: Callable[..., Any]) -> bytes:
    """How another process finds a function.

    Raises:
        TypeError: It cannot be found: it is not at the top level of its module.
    """
    try:
        return pickle.dumps(function)
    except (pickle.PicklingError, AttributeError) as error:
        raise TypeError(f"a handler for processes must be at the top level of its module: {error}") from None
