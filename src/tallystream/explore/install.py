"""The commands that put a draft to use, for `tallystream openai explore` to print: they run as they are printed."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from tallystream.explore.endpoint import Explored
from tallystream.settings.places import with_added
from tallystream.settings.settings import Settings

KEYS = {"api": "API", "admin": "ADMIN", "session": "SESSION"}


def install_lines(found: Explored, directory: Path, settings: Settings, data_dir: Path | None = None) -> list[str]:
    """Return the lines. What is set already is not repeated, and files are added to those in use.

    A key or credential that is missing has a placeholder.
    """
    asked = found.endpoint
    lines = []
    if not _has_key(settings, asked.key):
        lines.append(f"export TALLYSTREAM_OPENAI_{KEYS[asked.key]}_TOKEN=YOUR_OPENAI_KEY")
    lines.append(f"export TALLYSTREAM_OPENAI_BASE_URL={quote(settings.openai_base_url)}")
    if not found.polled_already:
        resources = with_added(settings.openai_resources, directory / "resources.toml", default=False)
        lines.append(f"export TALLYSTREAM_OPENAI_RESOURCES={quote(resources)}")
    mapping = with_added(settings.port_mapping, directory / "mapping.yaml", default=True)
    lines.append(f"export TALLYSTREAM_PORT_MAPPING={quote(mapping)}")
    if settings.port_client_id is None:
        lines.append("export TALLYSTREAM_PORT_CLIENT_ID=YOUR_PORT_CLIENT_ID")
    if settings.port_client_secret is None and settings.port_client_secret_file is None:
        lines.append("export TALLYSTREAM_PORT_CLIENT_SECRET=YOUR_PORT_CLIENT_SECRET")
    lines.append(f"tallystream port blueprints apply --yes {quote(str(directory / 'blueprint.json'))}")
    where = [] if data_dir is None else ["--data-dir", quote(str(data_dir))]
    lines.append(" ".join(["tallystream up", *where]))
    return lines


def _has_key(settings: Settings, kind: str) -> bool:
    """Tell whether a key is set that requests of this kind use."""
    names = (f"openai_{one}_token{suffix}" for one in (kind, "api") for suffix in ("", "_file"))
    return any(getattr(settings, name) is not None for name in names)
