"""The rules for what callers write. Each check adds to a list of violations, so that all are named."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from meshq.contract.errors import FieldViolation, InvalidRequest, shown
from meshq.contract.limits import (
    MAX_ATTEMPTS,
    MAX_CONTENT_TYPE_LENGTH,
    MAX_FRAME_BYTES,
    MAX_FRAME_ITEMS,
    MAX_HEADER_KEY_LENGTH,
    MAX_HEADER_VALUE_LENGTH,
    MAX_HEADERS,
    MAX_PAGE_SIZE,
    MAX_PAYLOAD_BYTES,
    MAX_REASON_LENGTH,
    MAX_TASK_LABEL_VALUE_LENGTH,
    MAX_TASK_LABELS,
    NAME_PATTERN,
    NAME_RULE,
    REQUEST_ID_PATTERN,
    REQUEST_ID_RULE,
    TASK_LABEL_KEY_PATTERN,
    TASK_LABEL_KEY_RULE,
)

Violations = list[FieldViolation]


@lru_cache(maxsize=4_096)
def is_name(value: str) -> bool:
    """Whether a queue or a task type may be called so; the same few come again and again."""
    return NAME_PATTERN.fullmatch(value) is not None


def check_name(violations: Violations, field: str, value: str) -> None:
    """A queue or a task type."""
    if not is_name(value):
        rule = NAME_RULE if value else "is required; it " + NAME_RULE
        violations.append(FieldViolation(field, f"{rule}{_but(value)}"))


def check_max_attempts(violations: Violations, field: str, value: int) -> None:
    """The number of attempts."""
    if not 1 <= value <= MAX_ATTEMPTS:
        violations.append(FieldViolation(field, f"must be 1 to {MAX_ATTEMPTS}, not {value}"))


def check_payload_size(violations: Violations, field: str, size: int) -> None:
    """The encoded input."""
    if size > MAX_PAYLOAD_BYTES:
        violations.append(FieldViolation(field, f"must have at most {MAX_PAYLOAD_BYTES} bytes, not {size}"))


def check_content_type(violations: Violations, field: str, value: str, *, has_payload: bool) -> None:
    """The media type of bytes; JSON needs none."""
    if len(value) > MAX_CONTENT_TYPE_LENGTH:
        violations.append(
            FieldViolation(field, f"must have at most {MAX_CONTENT_TYPE_LENGTH} characters, not {len(value)}")
        )
    elif has_payload:
        rule = f"must be empty with payload, not {shown(value)}; it names the form of data"
        violations.append(FieldViolation(field, rule))


def check_headers(violations: Violations, field: str, headers: Mapping[str, str]) -> None:
    """The free metadata."""
    if len(headers) > MAX_HEADERS:
        violations.append(
            FieldViolation(field, f"must have at most {MAX_HEADERS} entries, not {len(headers)}")
        )
        return
    for key, value in headers.items():
        if not 1 <= len(key) <= MAX_HEADER_KEY_LENGTH:
            rule = f"keys must have 1 to {MAX_HEADER_KEY_LENGTH} characters, not {len(key)}: {shown(key)}"
            violations.append(FieldViolation(field, rule))
        elif len(value) > MAX_HEADER_VALUE_LENGTH:
            rule = f"must have at most {MAX_HEADER_VALUE_LENGTH} characters, not {len(value)}"
            violations.append(FieldViolation(f"{field}[{key!r}]", rule))


def check_range(
    violations: Violations, field: str, value: float, bounds: tuple[float, float], unit: str = ""
) -> None:
    """A number; NaN is in no range."""
    least, most = bounds
    if not least <= value <= most:
        rule = f"must be {least:.15g} to {most:.15g}{unit}, not {value:.15g}{unit}"
        violations.append(FieldViolation(field, rule))


def check_text(violations: Violations, field: str, value: str, most: int) -> None:
    """A key or the like, which the ledger keeps as text."""
    if len(value) > most:
        rule = f"must have at most {most} characters, not {len(value)}"
        violations.append(FieldViolation(field, rule))
    elif "\x00" in value:
        violations.append(FieldViolation(field, f"must not have the character NUL{_but(value)}"))


def check_labels(violations: Violations, field: str, labels: Mapping[str, str]) -> None:
    """What tasks are found by."""
    if len(labels) > MAX_TASK_LABELS:
        rule = f"must have at most {MAX_TASK_LABELS} entries, not {len(labels)}"
        violations.append(FieldViolation(field, rule))
        return
    for key, value in labels.items():
        if not TASK_LABEL_KEY_PATTERN.fullmatch(key):
            rule = f"keys {TASK_LABEL_KEY_RULE}, not {shown(key)}"
            violations.append(FieldViolation(field, rule))
        else:
            check_text(violations, f"{field}[{key!r}]", value, MAX_TASK_LABEL_VALUE_LENGTH)


def check_request_id(request_id: str) -> None:
    """The request id of a call.

    Raises:
        InvalidRequest: It breaks its rule.
    """
    if request_id and not REQUEST_ID_PATTERN.fullmatch(request_id):
        raise InvalidRequest.field("request_id", REQUEST_ID_RULE + _but(request_id))


def check_frame(field: str, count: int, size: int) -> None:
    """A batch or frame as a whole.

    Raises:
        InvalidRequest: It is empty or too large.
    """
    check_count(field, count)
    if size > MAX_FRAME_BYTES:
        raise InvalidRequest.field(field, f"must have at most {MAX_FRAME_BYTES} bytes together, not {size}")


def check_count(field: str, count: int) -> None:
    """A list of ids or tasks.

    Raises:
        InvalidRequest: There are none or too many.
    """
    if not 1 <= count <= MAX_FRAME_ITEMS:
        raise InvalidRequest.field(field, f"must have 1 to {MAX_FRAME_ITEMS} entries, not {count}")


def page_size(value: int, default: int) -> int:
    """The number of entries of a page.

    Raises:
        InvalidRequest: It is out of range.
    """
    if not 0 <= value <= MAX_PAGE_SIZE:
        raise InvalidRequest.field("page_size", f"must be 1 to {MAX_PAGE_SIZE}, not {value}")
    return value or default


def checked_reason(value: str) -> str:
    """Why something was asked for, in the caller's words.

    Raises:
        InvalidRequest: It is too long.
    """
    if len(value) > MAX_REASON_LENGTH:
        raise InvalidRequest.field(
            "reason", f"must have at most {MAX_REASON_LENGTH} characters, not {len(value)}"
        )
    return storable(value)


def storable(text: str) -> str:
    """The text without the one character that PostgreSQL does not keep."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _but(value: str) -> str:
    return f", not {shown(value)}" if value else ""
