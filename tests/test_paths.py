"""Files are written whole or not at all, and nothing lands outside the cache folder."""

import os
import stat

import pytest

from course_lib.paths import cache_dir, repo_root, write_atomically


def test_repo_root_holds_the_library():
    assert (repo_root() / "course_lib" / "paths.py").is_file()


def test_cache_folder_follows_the_environment_and_is_created(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b" and cache_dir().is_dir()
    monkeypatch.delenv("COURSE_CACHE")
    assert cache_dir() == repo_root() / ".cache" / "course"


def test_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    for content in (b"first", b"second, longer", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_file_gets_the_permissions_that_open_would_give(tmp_path):
    (tmp_path / "opened").write_bytes(b"")
    write_atomically(tmp_path / "written", b"")
    assert stat.S_IMODE((tmp_path / "written").stat().st_mode) == stat.S_IMODE((tmp_path / "opened").stat().st_mode)


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_interrupted_write_leaves_the_old_file_and_no_other(monkeypatch, tmp_path, step):
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")

    def fails(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file.bin"]
