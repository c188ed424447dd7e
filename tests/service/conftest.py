"""The running Bento that the tests of a module share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, start


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Bento, shared by the tests of a module."""
    started = start(project, tmp_path_factory.mktemp("server"))
    yield started
    started.stop()
