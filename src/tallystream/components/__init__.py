"""Each module builds one component from the settings and runs it until it is told to stop."""

from __future__ import annotations

import sys


def _import_structlog() -> None:
    """Import structlog without the libraries that it uses if they are installed: a component, which would hold them in
    memory (3 MiB) as long as it runs, logs neither with rich nor from greenlets.
    """
    unused = ("rich", "greenlet")
    before = {name: sys.modules[name] for name in unused if name in sys.modules}
    # None makes `import rich` raise ImportError, which structlog expects
    sys.modules.update(dict.fromkeys(unused))  # type: ignore[arg-type]
    try:
        import structlog  # noqa: F401
    finally:
        for name in unused:
            del sys.modules[name]
        sys.modules.update(before)


_import_structlog()
