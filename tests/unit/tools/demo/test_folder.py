"""The one folder that the demo touches."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.tools.demo.folder import Folder


def test_is_made_where_it_is_missing(tmp_path: Path) -> None:
    """Also with its parents."""
    folder = Folder(tmp_path / "a" / ".demo")
    with folder.claimed():
        assert folder.path.is_dir()


def test_two_demos_do_not_share_one(tmp_path: Path) -> None:
    """The second is told what to do; after the first has ended the folder is free."""
    folder = Folder(tmp_path / ".demo")
    assert not folder.busy()
    with folder.claimed():
        assert folder.busy()
        with pytest.raises(StartError, match="--folder"), Folder(folder.path).claimed():
            pass
    assert not folder.busy()
    with folder.claimed():
        pass


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    """``--folder ~ --fresh`` must not cost anybody their files."""
    mine = tmp_path / "thesis.tex"
    mine.write_text("all of it")
    with pytest.raises(StartError, match="not empty"), Folder(tmp_path).claimed(fresh=True):
        pass
    assert [mine] == list(tmp_path.iterdir())


def test_fresh_forgets_the_earlier_demo(tmp_path: Path) -> None:
    """Without it everything is kept."""
    folder = Folder(tmp_path / ".demo")
    with folder.claimed():
        folder.config.write_text("old")
        folder.secrets.mkdir()
    with folder.claimed():
        assert folder.config.exists()
    with folder.claimed(fresh=True):
        assert not folder.config.exists()
        assert not folder.secrets.exists()


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    """No traceback for a folder that cannot be had."""
    (tmp_path / ".demo").write_text("a file")
    with pytest.raises(StartError, match="choose another"), Folder(tmp_path / ".demo").claimed():
        pass
