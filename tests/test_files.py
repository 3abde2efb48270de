import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gptshake.errors import DataError, StorageError
from gptshake.files import build_once, read_bytes, refuse_irregular, storage_error, write_atomic, write_folder_atomic, written


def holds_both(folder: Path) -> bool:
    return {file.name for file in folder.glob("*")} == {"a", "b"}


@pytest.mark.parametrize("name", ["file/below", "x" * 300])
def test_a_place_that_cannot_be_a_folder_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=rf"{name[:9]}.* cannot be written: .*paths\.runs="):
        build_once(tmp_path / name / "target", lambda folder: False, lambda folder: None)


def test_what_utf_8_cannot_say_is_written_as_a_question_mark(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x", "a\ud800\udcff")
    assert (tmp_path / "x").read_text() == "a??"


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link", "."):
        with pytest.raises(StorageError, match="is no regular file, and nothing is written in its place"):
            write_atomic(tmp_path / name, "a")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "pipe"] and (tmp_path / "pipe").is_fifo()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "target", holds_both, fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_build_that_resumes_goes_on_with_what_is_there(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        if not (folder / "a").exists():
            (folder / "a").touch()
            raise RuntimeError
        (folder / "b").touch()

    target = tmp_path / "target"
    with pytest.raises(RuntimeError):
        build_once(target, holds_both, build, resumes=True)
    assert not target.exists()
    assert build_once(target, holds_both, build, resumes=True)
    assert holds_both(target)
    assert not build_once(target, holds_both, build, resumes=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["target"]


def wrapped(error: Exception) -> Exception:
    """A library's own error around the system's."""
    try:
        raise RuntimeError("something of the library's own") from error
    except RuntimeError as outer:
        return outer


FULL = OSError(errno.ENOSPC, "No space left on device")
SAFETENSORS = ValueError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("error", [FULL, SAFETENSORS, wrapped(FULL), OSError(errno.EDQUOT, "Disk quota exceeded")])
def test_a_full_disk_is_one_sentence_with_the_file_and_what_is_free(error: Exception, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise error

    for attempt in (write_folder_atomic, lambda target, write: build_once(target, holds_both, write)):
        with pytest.raises(StorageError, match=r"disk is full.*target could not be written.*MiB are free.*task=clean") as caught:
            attempt(tmp_path / "target", write)
        assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "", "/far/away"),
        OSError(errno.EROFS, "", "/far/away"),
        *(OSError(n, "", "/far/away") for n in (errno.EFBIG, errno.EIO, errno.EXDEV, errno.EINVAL, errno.ENOTSUP, errno.ETXTBSY)),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named_with_the_ways_out(error: Exception, tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise error

    with pytest.raises(StorageError, match=r"/far/away.*GPTSHAKE_CACHE"):
        build_once(tmp_path / "target", holds_both, write)


@pytest.mark.parametrize("beside", [".runs.csv.0123abcd", ".runs.csv.partial", ".runs.csv.lock"])
def test_the_target_is_named_and_not_the_file_that_is_written_in_its_place(beside: str) -> None:
    for folder in ("/far/", ""):
        error = PermissionError(errno.EACCES, "", f"{folder}{beside}")
        assert str(storage_error(error)).startswith(f"{folder}runs.csv cannot be accessed: Permission denied.")


def test_a_full_disk_says_whether_bytes_or_inodes_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "", str(tmp_path / "a"))
    assert " MiB are free there. Free" in str(storage_error(full))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_files=9, f_favail=0))
    assert f"{tmp_path}/a could not be written, no inode for another file is left there. Free some space" in str(storage_error(full))


def test_too_many_open_files_and_an_unknown_file_have_their_own_sentence_or_none() -> None:
    assert "ulimit -n" in str(storage_error(OSError(errno.EMFILE, "", "/far/away")))
    for number in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV):  # of a socket, a device, ...
        assert storage_error(OSError(number, os.strerror(number))) is None


def test_an_error_that_is_raised_anew_out_of_what_wrapped_it_is_looked_through_once() -> None:
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = error = KeyError("of a user's own class")
    error.__cause__ = wrapped
    assert storage_error(error) is None


def test_a_link_to_what_is_gone_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(FileExistsError) as raised:
        (tmp_path / "link").mkdir(parents=True, exist_ok=True)
    assert str(storage_error(raised.value)).startswith(
        f"{tmp_path}/link cannot be written: File exists. Choose another place with paths.runs="
    )
    assert "GPTSHAKE_CACHE" in str(storage_error(raised.value))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has /proc")
def test_a_file_system_that_stores_no_files_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^/proc/x.* cannot be written: the file system there stores no files\. Choose another place"):
        build_once(Path("/proc/x/target"), lambda folder: False, lambda folder: None)
    with pytest.raises(FileNotFoundError) as raised:
        (tmp_path / "gone").read_text()
    assert storage_error(raised.value) is None  # elsewhere a file that is missing is no matter of the disk


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise DataError("no space for this word (os error 28)")

    with pytest.raises(DataError):
        write_folder_atomic(tmp_path / "new" / "folders" / "target", write)
    assert not any(tmp_path.iterdir())  # nor is anything left of what did not come about


def test_a_report_that_cannot_be_written_is_a_note_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert written(lambda: [tmp_path / "plots/a.png", tmp_path / "b.html"]) == "  plots/a.png\n  b.html"

    def fails(*place: str) -> Iterator[Path]:
        raise OSError(errno.EROFS, "Read-only file system", *place)
        yield

    assert written(lambda: fails("plots/a.png")) == "  note: no file was written: plots/a.png: Read-only file system"

    def full() -> Iterator[Path]:
        raise StorageError("plots/a.png cannot be written")
        yield

    assert written(full) == "  note: no file was written: plots/a.png cannot be written"
    assert written(fails) == "  note: no file was written: the folder: Read-only file system"


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(ValueError, match="a has 5 bytes, more than 4"):
        read_bytes(tmp_path / "a", 4)


def test_the_working_directory_that_is_named_as_a_file_has_a_name() -> None:
    with pytest.raises(ValueError, match=r"^\. is not a regular file$"):
        refuse_irregular(Path())
