"""A record's attributes, in the three forms in which decoders have them.

Nearly all values in protobuf are texts, and most others integers. `value.string_value or value.int_value` is the
shortest way to one: of a value of another kind both are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from tallystream.schemas.otlp.records import OPAQUE, Attributes, Value


class MapAttributes(Attributes):
    """Attributes as protobuf's map."""

    __slots__ = ("_map",)

    def __init__(self, attributes: Any) -> None:
        self._map = attributes

    def get(self, name: str) -> Value:
        """Return the value, or None when it is absent or empty."""
        # the map's [] would add a missing key
        value = self._map.get(name)
        return None if value is None else value.string_value or value.int_value or message_value(value)

    def values_of(self, names: tuple[str, ...]) -> list[Value]:
        """Return the values of these names, each as `get` returns it."""
        get = self._map.get
        return [
            None if (value := get(name)) is None else value.string_value or value.int_value or message_value(value)
            for name in names
        ]

    def names(self) -> Collection[str]:
        """Return the keys."""
        names: Collection[str] = self._map
        return names


class PlainAttributes(Attributes):
    """Attributes as a dict of decoded values."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Value]) -> None:
        self._values = values

    def get(self, name: str) -> Value:
        """Return the value, or None when it is absent or empty."""
        return self._values.get(name)

    def values_of(self, names: tuple[str, ...]) -> list[Value]:
        """Return the values of these names, each as `get` returns it."""
        get = self._values.get
        return [get(name) for name in names]

    def names(self) -> Collection[str]:
        """Return the keys."""
        return self._values


class JsonAttributes(Attributes):
    """Attributes as a dict of parsed JSON, of which `decode` makes a value."""

    __slots__ = ("_decode", "_values")

    def __init__(self, values: dict[str, Any], decode: Callable[[Any], Value]) -> None:
        self._values = values
        self._decode = decode

    def get(self, name: str) -> Value:
        """Return the value, or None when it is absent or empty."""
        value = self._values.get(name)
        return None if value is None else self._decode(value)

    def values_of(self, names: tuple[str, ...]) -> list[Value]:
        """Return the values of these names, each as `get` returns it."""
        get, decode = self._values.get, self._decode
        found: list[Value] = []
        for name in names:
            value = get(name)
            if value is None:
                found.append(None)
                continue
            # nearly all values are texts, and this is the shortest way to one
            told = value.get("stringValue") if type(value) is dict and len(value) == 1 else None
            found.append(told if type(told) is str and told.isascii() else decode(value))
        return found

    def names(self) -> Collection[str]:
        """Return the keys."""
        return self._values


def message_value(value: Any) -> Value:
    """Return the content of an AnyValue message."""
    kind = value.WhichOneof("value")
    if kind == "string_value" or kind == "int_value" or kind == "bool_value" or kind == "double_value":
        scalar: Value = getattr(value, kind)
        return scalar
    return None if kind is None else OPAQUE


def message_values(attributes: Any) -> dict[str, Value]:
    """Return protobuf's map of AnyValue messages as a dict of their contents."""
    return {name: value.string_value or value.int_value or message_value(value) for name, value in attributes.items()}
