"""A mapping's own endpoint as a resource of the poller: what Ocean's custom integration asks by the same selector.

Ocean sends `query_params` as they are, the mappings of Port's page on Codex expect JQ. Both work: a text is JQ if it
uses `now`, `$from` or `$to`, or is JSON (`'"1d"'`, `'100'`), and literal otherwise (`public_channel`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from tallystream.agents.port_sink.mapping.model import PathParameter, ResourceMapping, Selector
from tallystream.schemas.errors import UsageError
from tallystream.streams.poller.resources import KeyKind, Resource

HINT = "docs/port.md lists what a mapping can ask for; declare a resource in TALLYSTREAM_OPENAI_RESOURCES for the rest"
_TIME = re.compile(r"(?<![\w.])(now|\$from|\$to)\b")
_FIELDS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PLACE = re.compile(r"\{(\w*)\}")
_NAMES = {
    "type": "type", "paginationType": "type", "pagination_type": "type",
    "param": "param", "paginationParam": "param", "pagination_param": "param",
    "size": "size", "pageSize": "size", "page_size": "size",
    "sizeParam": "size_param", "size_param": "size_param",
    "startPage": "first", "start_page": "first",
    "cursorPath": "next", "cursor_path": "next", "nextLinkPath": "next", "next_link_path": "next",
    "hasMorePath": "more", "has_more_path": "more",
}  # fmt: skip
"""Names of Ocean's pagination settings, in the mapping's and in the chart's spelling, and ours."""
_CURSOR = '[.next_cursor?, .cursor?, .meta.after_cursor?, .links.next?] | map(select(. != null and . != "")) | .[0]'
_MORE = 'if type == "object" then [.has_more, .hasMore, .meta.has_more?] | map(select(. != null)) | .[0] else null end'


def resource_of(mapping: ResourceMapping) -> Resource:
    """Return the resource that fetches a kind's records, under the kind's name.

    Raises:
        UsageError: the selector asks for something that is not polled; the message names it.

    """
    kind, selector = mapping.kind, mapping.selector
    path = selector.endpoint or kind
    if not path.startswith("/"):
        raise _refused(kind, f"{path!r} is not a path below the base URL")
    if unknown := sorted(selector.model_extra or {}):
        raise _refused(kind, f"selector.{unknown[0]} is not supported")
    declared: dict[str, Any] = {
        "path": path,
        "name": kind,
        "key": key_of(path),
        "method": _method(kind, selector.method),
        "headers": selector.headers,
        "body": selector.body,
        "params": query_params(selector.query_params),
        "data": _data(selector.data_path),
        "pages": _pages(kind, selector),
        "parents": _parents(kind, path, selector),
    }
    try:
        return Resource.model_validate(declared)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        raise _refused(kind, f"{'.'.join(map(str, error['loc']))}: {error['msg']}".lstrip(": ")) from None


def key_of(path: str) -> KeyKind:
    """Return the kind of key that OpenAI wants for a path."""
    if path.startswith("/organization/"):
        return "admin"
    return "session" if path.startswith("/dashboard/") else "api"


def query_params(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as a resource has them: every text is JQ."""
    return {name: _param(value) for name, value in given.items() if value is not None}


def _param(value: Any) -> Any:
    if not isinstance(value, str) or _TIME.search(value):
        return value
    try:
        json.loads(value)
    except ValueError:
        return json.dumps(value)
    return value


def _method(kind: str, method: str) -> Literal["GET", "POST"]:
    match method.upper():
        case "GET":
            return "GET"
        case "POST":
            return "POST"
    raise _refused(kind, f"selector.method is {method}, and a poll must not change anything: GET or POST")


def _data(path: str | None) -> str:
    """Return the JQ of the list of records: what is no list is one record, as in Ocean."""
    return f'({path or "."}) | if type == "object" then [.] else . end'


def _pages(kind: str, selector: Selector) -> dict[str, Any] | None:
    given = selector.pagination
    if given is None:
        return None
    said: dict[str, Any] = {"type": given} if isinstance(given, str) else dict(given)
    if unknown := sorted(said.keys() - _NAMES.keys()):
        raise _refused(kind, f"selector.pagination.{unknown[0]} is not supported")
    options = {_NAMES[name]: value for name, value in said.items()}
    style = str(options.pop("type", "none")).lower()
    for name in ("next", "more"):
        if name in options:
            options[name] = _path(str(options[name]))
    match style:
        case "none":
            return None
        case "offset":
            return {"style": "offset", "param": "offset", "size": 100} | options
        case "page":
            return {"style": "page", "param": "page", "size": 100, "size_param": "size"} | options
        case "cursor":
            return {"style": "token", "param": "cursor", "size": 100, "next": _CURSOR, "more": _MORE} | options
        case "next_link":
            return {"style": "link", "next": _path("@odata.nextLink")} | options
        case "link" | "link_header" | "header":
            return {"style": "link"} | options
    raise _refused(kind, f"selector.pagination is {style}: none, offset, page, cursor, link_header or next_link")


def _path(text: str) -> str:
    """Return JQ for a path in dots, such as `meta.next`; an empty text there means that there is no next page."""
    plain = text.removeprefix(".")
    found = f".{plain}" if _FIELDS.fullmatch(plain) else f".[{json.dumps(plain)}]"
    return f'{found}? | if . == "" then null else . end'


def _parents(kind: str, path: str, selector: Selector) -> dict[str, Any] | None:
    places = _PLACE.findall(path)
    if not places:
        return None
    if len(places) > 1:
        raise _refused(kind, "more than one placeholder in the path is not supported")
    (place,) = places
    asked = selector.path_parameters.get(place)
    if asked is None:
        raise _refused(kind, f"selector.path_parameters does not say what {{{place}}} is")
    _check_parents(kind, place, asked)
    return {
        "path": asked.endpoint,
        "name": f"__{place}",
        "param": place,
        "field": asked.field,
        "filter": asked.filter,
        "data": _data(asked.data_path),
        "params": query_params(asked.query_params or {}),
    }


def _check_parents(kind: str, place: str, asked: PathParameter) -> None:
    if asked.method.upper() != "GET":
        raise _refused(kind, f"selector.path_parameters.{place}.method is {asked.method}: only GET is supported")
    if asked.headers:
        raise _refused(kind, f"selector.path_parameters.{place}.headers is not supported")


def _refused(kind: str, why: str) -> UsageError:
    return UsageError(f"{kind} cannot be polled by its mapping: {why}", HINT)
