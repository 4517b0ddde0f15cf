"""The data dir is accessible only to its user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallystream.schemas.errors import UsageError
from tallystream.streams.service import private_dir


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_data_dir_and_its_files_are_created_private(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "données"
    private_dir.claim(directory)
    (directory / "file").touch()
    (directory / "below").mkdir()
    assert (mode(directory), mode(directory / "file"), mode(directory / "below")) == (0o700, 0o600, 0o700)
    private_dir.claim(directory)


def test_readable_data_dir_is_made_private(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir(mode=0o755)
    private_dir.claim(directory)
    assert mode(directory) == 0o700


def test_symbolic_link_as_data_dir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UsageError, match="is a symbolic link"):
        private_dir.claim(tmp_path / "link")


def test_file_as_data_dir_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a directory"):
        private_dir.claim(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_data_dir_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    with pytest.raises(UsageError, match="belongs to another user"):
        private_dir.claim(directory)
