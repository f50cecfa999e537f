"""From a task's input to the arguments of its handler, checked and converted by the type hints."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pydantic

from meshq.client.values import from_value
from meshq.v1.task_pb2 import Task
from meshq.worker.context import TaskContext
from meshq.worker.errors import InvalidInput

Bound: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
"""Positional and keyword arguments."""

JSON_CONTENT_TYPE = "application/json"
_KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_SHOWN_LENGTH = 60


@dataclasses.dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    adapter: pydantic.TypeAdapter[Any]
    required: bool
    takes_object: bool


class Arguments:
    """The parameters of one handler.

    An object becomes keyword arguments; any other input is the single argument. A handler with one
    parameter that itself is an object (a mapping, a model, a dataclass or anything at all) gets the
    object whole.

    Attributes:
        context: The name of the parameter that takes the `TaskContext`, if there is one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.context: str | None = None
        self._arguments: dict[str, _Argument] = {}
        self._extra: pydantic.TypeAdapter[Any] | None = None
        hints = typing.get_type_hints(function, include_extras=True)
        for parameter in inspect.signature(function).parameters.values():
            self._add(parameter, hints.get(parameter.name, Any))
        self._single = self._single_argument()

    def bind(self, task: Task) -> Bound:
        """The arguments for a task.

        Raises:
            InvalidInput: The input does not fit; the message names the argument and the rule.
        """
        kind = task.WhichOneof("input")
        if kind is None:
            return (), self._keywords({})
        value = from_value(task.payload) if kind == "payload" else _decoded(task)
        single = self._single
        if single is not None and (single.takes_object or not isinstance(value, dict)):
            return (), {single.name: _checked(single.name, single.adapter, value)}
        if isinstance(value, dict) or value is None:  # JSON's null says as little as an empty object.
            return (), self._keywords(value or {})
        names = self._names()
        rule = f"must be an object with {names}" if self._arguments else "must be absent or an empty object"
        raise InvalidInput(f"payload: {rule}, not {_shown(value)}")

    def _add(self, parameter: inspect.Parameter, hint: Any) -> None:
        if hint is TaskContext:
            self.context = parameter.name
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            self._extra = _adapter(hint)
        elif parameter.kind in _KEYWORD_KINDS:
            required = parameter.default is inspect.Parameter.empty
            self._arguments[parameter.name] = _Argument(
                parameter.name, _adapter(hint), required, _takes_object(hint)
            )
        else:
            raise TypeError(f"a handler's parameter must take a keyword; {parameter} does not")

    def _single_argument(self) -> _Argument | None:
        """The one parameter that an input without names is for."""
        arguments = list(self._arguments.values())
        required = [argument for argument in arguments if argument.required]
        if self._extra is not None or not arguments or len(required) > 1:
            return None
        chosen = required[0] if required else arguments[0]
        # With options beside it, an object always is a set of keyword arguments.
        return chosen if len(arguments) == 1 else dataclasses.replace(chosen, takes_object=False)

    def _keywords(self, values: Mapping[str, Any]) -> dict[str, Any]:
        problems: list[str] = []
        bound: dict[str, Any] = {}
        for name, value in values.items():
            argument = self._arguments.get(name)
            adapter = argument.adapter if argument else self._extra
            if adapter is None:
                problems.append(f"{name}: is not an argument; there are {self._names()}")
                continue
            try:
                bound[name] = _checked(name, adapter, value)
            except InvalidInput as error:
                problems.append(error.message)
        problems += [
            f"{argument.name}: is required"
            for argument in self._arguments.values()
            if argument.required and argument.name not in values
        ]
        if problems:
            raise InvalidInput("; ".join(problems))
        return bound

    def _names(self) -> str:
        return ", ".join(self._arguments) or "none"


def _adapter(hint: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return pydantic.TypeAdapter(hint)
    except pydantic.PydanticSchemaGenerationError:
        config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        return pydantic.TypeAdapter(hint, config=config)


def _takes_object(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        return _takes_object(typing.get_args(hint)[0])
    plain = typing.get_origin(hint) or hint
    if plain is Any or plain is object or typing.is_typeddict(plain) or dataclasses.is_dataclass(plain):
        return True
    return isinstance(plain, type) and issubclass(plain, (Mapping, pydantic.BaseModel))


def _decoded(task: Task) -> Any:
    """Data as it is, unless it is JSON."""
    if task.content_type.partition(";")[0].strip().lower() != JSON_CONTENT_TYPE:
        return task.data
    try:
        return json.loads(task.data)
    except ValueError as error:
        raise InvalidInput(f"data: must be JSON, as its content type says: {error}") from None


def _checked(name: str, adapter: pydantic.TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        raise InvalidInput("; ".join(_problem(name, detail) for detail in error.errors()[:10])) from None


def _problem(name: str, detail: Any) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    rule: str = detail["msg"]
    return f"{name}{''.join(steps)}: {rule[:1].lower()}{rule[1:]}, not {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."
