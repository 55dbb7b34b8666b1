"""``python -m course_lib fetch``: whole, exact, unmixed files; archives that cannot write where they should not."""

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import io
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from typer.testing import CliRunner

from course_lib import cli
from course_lib.data import bapps, nights
from course_lib.data import download as downloading
from course_lib.data import fetch as fetching
from course_lib.data import unpack as unpacking
from course_lib.data.download import PartialFile, download
from course_lib.data.fetch import DATASETS, fetch
from course_lib.data.unpack import BadArchiveError, unpack
from course_lib.paths import repo_root

DATA = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
MODIFIED = "Mon, 01 Jan 2024 00:00:00 GMT"


def etag(content):
    return f'"{hashlib.md5(content).hexdigest()}"'


class Site:
    """A server's files and how badly it behaves; `asked` records path, Range and If-Range of every request."""

    def __init__(self):
        self.files, self.asked = {}, []
        self.cuts = []  # how many bytes of each next response to send before dropping the connection
        self.ranges = self.if_range = self.etags = self.lengths = True
        self.weak = False  # an ETag that is no use for resuming, beside a Last-Modified that is
        self.before = lambda count: None  # called before the request with this number
        self.failures = []  # status codes of the next responses

    def reply(self, handler):
        name, span, condition = handler.path[1:], handler.headers["Range"], handler.headers["If-Range"]
        self.before(len(self.asked))
        self.asked.append((name, span, condition))
        if self.failures or name not in self.files:
            handler.send_error(self.failures.pop(0) if self.failures else 404)
            return
        content = self.files[name]
        validator = MODIFIED if self.weak else etag(content)
        start = int(re.fullmatch(r"bytes=(\d+)-", span)[1]) if span and self.ranges else 0
        if start and self.if_range and condition != validator:
            start = 0
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.lengths:
            handler.send_header("Content-Length", str(len(content) - start))
        if self.etags:
            handler.send_header("ETag", ("W/" if self.weak else "") + etag(content))
        if self.weak:
            handler.send_header("Last-Modified", MODIFIED)
        handler.end_headers()
        body = content[start:]
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def site(monkeypatch):
    """A loopback server; `site.url` ends in a slash."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "PAUSES", (0, 0, 0))
    monkeypatch.setattr(downloading, "TIMEOUT", 5)
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            site.reply(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}/"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def part(tmp_path):
    return PartialFile(tmp_path / "x.tar.part")


# Downloads


def test_dropped_download_asks_for_exactly_the_missing_bytes(site, part):
    site.files["x.tar"], site.cuts = DATA, [1000, 70_000]
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA
    ranges = [None, "bytes=1000-", "bytes=71000-"]
    assert site.asked == [("x.tar", span, span and etag(DATA)) for span in ranges]


def test_next_command_goes_on_where_the_last_one_gave_up(site, part):
    site.files["x.tar"], site.cuts = DATA, [200_000, 10, 10, 10, 10]
    with pytest.raises(ConnectionError, match=r"200040 bytes are kept in .*x\.tar\.part; .* goes on from there"):
        download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA[:200_040]
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA and site.asked[-1][1] == "bytes=200040-"
    asked = len(site.asked)
    download(site.url + "x.tar", part)
    assert len(site.asked) == asked, "a complete file was asked for again"


def test_number_of_attempts_is_bounded_but_progress_starts_it_again(site, part):
    site.files["x.tar"], site.cuts = DATA, [0] * 100
    with pytest.raises(ConnectionError, match="4 times"):
        download(site.url + "x.tar", part)
    assert len(site.asked) == 4
    site.cuts = [30_000] * 9
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA and len(site.asked) == 14


@pytest.mark.parametrize("missing", ["ranges", "etags"])
def test_server_that_cannot_resume_sends_everything_again(site, part, missing):
    site.files["x.tar"], site.cuts = DATA, [100_000]
    setattr(site, missing, False)
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA and len(site.asked) == 2
    assert (site.asked[1][1] is None) == (missing == "etags")


@pytest.mark.parametrize("if_range", [True, False], ids=["honest", "If-Range ignored"])
@pytest.mark.parametrize("new", [OTHER, OTHER[:50_000], DATA[:150_000] + OTHER], ids=["same size", "short", "long"])
def test_file_that_changes_on_the_server_is_never_mixed(site, part, new, if_range):
    def change(count):
        if count == 1:
            site.files["x.tar"] = new

    site.files["x.tar"], site.cuts, site.before, site.if_range = DATA, [100_000], change, if_range
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == new


def test_weak_etag_is_not_relied_on_when_there_is_a_last_modified(site, part):
    site.files["x.tar"], site.cuts, site.weak = DATA, [1000], True
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA and site.asked[1] == ("x.tar", "bytes=1000-", MODIFIED)


@pytest.mark.parametrize("cuts", [[], [200_000, 0, 0, 0, 0]], ids=["complete", "dropped"])
def test_bytes_from_another_address_are_not_continued(site, part, cuts):
    site.files, site.cuts = {"x.tar": DATA, "y.tar": OTHER}, cuts
    with contextlib.suppress(ConnectionError):
        download(site.url + "x.tar", part)
    download(site.url + "y.tar", part)
    assert part.path.read_bytes() == OTHER and site.asked[-1] == ("y.tar", None, None)


def test_bytes_of_unknown_origin_are_not_continued(site, part):
    site.files["x.tar"] = DATA
    part.path.write_bytes(b"something else")
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA and site.asked == [("x.tar", None, None)]


def test_passing_server_error_is_tried_again(site, part):
    site.files["x.tar"], site.failures = DATA, [503, 429]
    download(site.url + "x.tar", part)
    assert part.path.read_bytes() == DATA and len(site.asked) == 3


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(404, FileNotFoundError, "404 Not Found; check the address"), (403, PermissionError, "403 Forbidden")],
)
def test_refusal_is_not_tried_again_and_keeps_what_is_there(site, part, status, error, message):
    site.files["x.tar"], site.cuts = DATA, [1000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError):
        download(site.url + "x.tar", part)
    asked, site.failures = len(site.asked), [status]
    with pytest.raises(error, match=message):
        download(site.url + "x.tar", part)
    assert len(site.asked) == asked + 1 and part.path.read_bytes() == DATA[:1000]


def test_no_network_is_said_at_once(site, part):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=r"cannot be reached \(.*refused.*\); is there a network"):
        download(f"http://127.0.0.1:{port}/x.tar", part)


def test_file_of_unknown_length_is_refused(site, part):
    site.files["x.tar"], site.lengths = DATA, False
    with pytest.raises(ValueError, match="sends no Content-Length"):
        download(site.url + "x.tar", part)


def test_download_that_does_not_fit_on_the_disk_is_not_started(site, part, monkeypatch):
    site.files["x.tar"] = DATA
    usage = shutil.disk_usage(part.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=700_000))
    download(site.url + "x.tar", part, spare=1.3)
    part.remove()
    with pytest.raises(OSError, match=r"0.00072 GB are needed in .*, but 0.0007 GB are free"):
        download(site.url + "x.tar", part, spare=1.4)
    assert not part.path.exists()


# Archives

PICTURE = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(PICTURE, "png")
VOTE = io.BytesIO()
np.save(VOTE, np.array([0.6], np.float32))


def tar(path, members, compression="gz"):
    """A tar archive; a member is bytes, or a TarInfo type and a link's target."""
    with tarfile.open(path, f"w:{compression}") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                file.addfile(info)
    return path


def zipped(path, members):
    """A zip archive; a member is bytes, or bytes and the Unix mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            content, mode = content if isinstance(content, tuple) else (content, stat.S_IFREG | 0o644)
            info.external_attr = mode << 16
            file.writestr(info, content)
    return path


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GOOD = [("x/a.txt", b"a"), ("x/b/c.txt", b"c" * 5000)]
SYMLINK, LINK, DIRECTORY, PIPE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE


@pytest.mark.parametrize("compression", ["", "gz", "xz", "zip"])
def test_good_archive_becomes_its_folder(tmp_path, compression):
    make = zipped if compression == "zip" else lambda path, members: tar(path, members, compression)
    unpack(make(tmp_path / "archive", [("beside", b"left out"), ("./x/d", b""), *GOOD]), tmp_path / "x", 1e6)
    assert tree(tmp_path / "x") == {"a.txt": b"a", "b/c.txt": b"c" * 5000, "d": b""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "x"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([("../evil", b"!")], r"member '../evil' leads out of the folder"),
        ([("x/../../evil", b"!")], r"member 'x/../../evil' leads out of the folder"),
        ([("/tmp/evil", b"!")], r"member '/tmp/evil' leads out of the folder"),
        ([("x\\..\\..\\evil", b"!")], r"leads out of the folder"),
        ([("C:/evil", b"!")], r"member 'C:/evil' leads out of the folder"),
        ([("..", (DIRECTORY, ""))], r"member '..' leads out of the folder"),
        ([("x/link", (SYMLINK, "..")), ("x/link/evil", b"!")], r"member 'x/link' is a link or device"),
        ([("x", (SYMLINK, ".")), ("x/evil", b"!")], r"member 'x' is a link or device"),
        ([("x/hard", (LINK, "../secret"))], r"member 'x/hard' is a link or device"),
        ([("x/tty", (tarfile.CHRTYPE, ""))], r"member 'x/tty' is a link or device"),
        ([("x/disk", (tarfile.BLKTYPE, ""))], r"member 'x/disk' is a link or device"),
        ([("x/pipe", (PIPE, ""))], r"member 'x/pipe' is a link or device"),
        ([("x/a.txt", b"again")], r"member 'x/a.txt' twice"),
        ([("x/a.txt/b", b"in a file")], r"member 'x/a.txt/b' twice"),
        ([("x/bomb", b"\0" * 2_000_000)], r"holds more than 0.001 GB"),
        ([("beside", b"\0" * 2_000_000)], r"holds more than 0.001 GB"),
    ],
)
def test_malicious_tar_is_refused_and_writes_nothing(tmp_path, bad, message):
    (tmp_path / "secret").write_text("mine")
    inside = tmp_path / "data"
    inside.mkdir()
    archive = tar(tmp_path / "evil.tar.gz", [*GOOD, *bad])
    with pytest.raises(BadArchiveError, match=message):
        unpack(archive, inside / "x", 1e6)
    assert sorted(map(str, tree(tmp_path))) == ["evil.tar.gz", "secret"] and [*inside.iterdir()] == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("../evil", b"!"), r"member '../evil' leads out"),
        (("/tmp/evil", b"!"), r"member '/tmp/evil' leads out"),
        (("x\\..\\..\\evil", b"!"), r"leads out"),
        (("C:\\evil", b"!"), r"leads out"),
        (("x/../../evil/", b""), r"member 'x/../../evil/' leads out"),
        (("x/link", (b"/etc", stat.S_IFLNK | 0o777)), r"member 'x/link' is a link or device"),
        (("x/pipe", (b"", stat.S_IFIFO | 0o644)), r"member 'x/pipe' is a link or device"),
        (("x/a.txt", b"again"), r"member 'x/a.txt' twice"),
        (("x/bomb", b"\0" * 2_000_000), r"holds more than 0.001 GB"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_malicious_zip_is_refused_and_writes_nothing(tmp_path, bad, message):
    inside = tmp_path / "data"
    inside.mkdir()
    archive = zipped(tmp_path / "evil.zip", [*GOOD, bad])
    with pytest.raises(BadArchiveError, match=message):
        unpack(archive, inside / "x", 1e6)
    assert [*tree(tmp_path)] == ["evil.zip"] and [*inside.iterdir()] == []


def test_zip_that_lies_about_a_size_cannot_write_more(tmp_path):
    archive = zipped(tmp_path / "x.zip", [("x/bomb", b"\0" * 500_000)])
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(signature) + offset
        assert int.from_bytes(content[at : at + 4], "little") == 500_000
        content[at : at + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(BadArchiveError, match="damaged"):
        unpack(archive, tmp_path / "x", 1e6)
    assert [*tree(tmp_path)] == ["x.zip"]


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 5)
    archive = tar(tmp_path / "many.tar", [(f"x/{i}", b"") for i in range(6)], "")
    with pytest.raises(BadArchiveError, match="or 5 files"):
        unpack(archive, tmp_path / "x", 1e6)


NOISE = [(f"x/{i}", np.random.default_rng(i).bytes(3000)) for i in range(30)]


@pytest.mark.parametrize("kind", ["", "gz", "xz", "zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
def test_truncated_archive_is_damaged(tmp_path, kind, share):
    archive = zipped(tmp_path / "a", NOISE) if kind == "zip" else tar(tmp_path / "a", NOISE, kind)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadArchiveError, match="damaged"):
        unpack(archive, tmp_path / "x", 1e6)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["gz", "xz", "zip"])
@pytest.mark.parametrize("position", [0.2, 0.5, 0.9])
def test_changed_byte_is_damage(tmp_path, kind, position):
    archive = zipped(tmp_path / "a", NOISE) if kind == "zip" else tar(tmp_path / "a", NOISE, kind)
    content = bytearray(archive.read_bytes())
    content[int(position * len(content))] ^= 0x55
    archive.write_bytes(content)
    with pytest.raises(BadArchiveError):
        unpack(archive, tmp_path / "x", 1e6)
    assert not (tmp_path / "x").exists()


def test_damaged_header_in_a_plain_tar_is_not_taken_for_the_end(tmp_path):
    archive = tar(tmp_path / "a", NOISE, "")
    content = bytearray(archive.read_bytes())
    content[10 * 3584 + 150] ^= 0x55  # in the checksum of the eleventh header
    archive.write_bytes(content)
    with pytest.raises(BadArchiveError, match="its end is not where it should be"):
        unpack(archive, tmp_path / "x", 1e6)


@pytest.mark.parametrize("cut", [0, 100, 511, 512, 513, 2000, 3583])
def test_plain_tar_that_is_cut_between_or_in_files_is_damaged(tmp_path, cut):
    archive = tar(tmp_path / "a", NOISE, "")
    archive.write_bytes(archive.read_bytes()[: 20 * 3584 + cut])
    with pytest.raises(BadArchiveError, match="damaged"):
        unpack(archive, tmp_path / "x", 1e6)


def test_what_is_no_archive_is_named_so(tmp_path):
    (tmp_path / "page").write_text("<html>Please log in</html>" * 100)
    with pytest.raises(BadArchiveError, match="page is damaged, or no archive"):
        unpack(tmp_path / "page", tmp_path / "x", 1e6)
    with pytest.raises(ValueError, match="has no folder y/ but x; it is kept"):
        unpack(tar(tmp_path / "a.tar", GOOD), tmp_path / "y", 1e6)


def test_existing_folder_is_never_written_to(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(FileExistsError, match="nothing was changed"):
        unpack(tar(tmp_path / "a.tar", GOOD), tmp_path / "x", 1e6)
    assert [*(tmp_path / "x").iterdir()] == []


# The command


def triplets(*subsets, n=2):
    names = [(part, "npy" if part == "judge" else "png") for part in ("ref", "p0", "p1", "judge")]
    content = {"npy": VOTE.getvalue(), "png": PICTURE.getvalue()}
    return [
        (f"{subset}/{part}/{i:06d}.{end}", content[end]) for subset in subsets for part, end in names for i in range(n)
    ]


def make_jnd(path):
    members = triplets("jnd/val/traditional", "jnd/val/cnn")
    return tar(path, [(name.replace("/judge/", "/same/"), content) for name, content in members if "/ref/" not in name])


def make_val(path):
    subsets = ("traditional", "cnn", "superres", "deblur", "color", "frameinterp")
    return tar(path, triplets(*(f"val/{subset}" for subset in subsets)))


def make_train(path):
    return tar(path, triplets("train/traditional", "train/cnn", "train/mix"))


TABLE = "id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,is_imagenet"


def make_nights(path, n=4):
    members, rows = [], [TABLE]
    for i, split in zip(range(n), ("train", "train", "val", "test"), strict=False):
        names = [f"ref/000/{i:03d}.png", f"distort/000/{i:03d}_0.png", f"distort/000/{i:03d}_1.png"]
        members += [(f"nights/{name}", PICTURE.getvalue()) for name in names]
        rows.append(",".join([str(i), "1", "0", "7", *names, split, str(i % 2 == 0)]))
    return zipped(path, [*members, ("nights/data.csv", "\n".join(rows).encode()), ("nights/README.md", b"")])


@pytest.fixture
def archives(tmp_path):
    """A folder of miniature archives under their published names."""
    folder = tmp_path / "archives"
    folder.mkdir()
    make_jnd(folder / "jnd.tar.gz")
    make_val(folder / "twoafc_val.tar.gz")
    make_train(folder / "twoafc_train.tar.gz")
    make_nights(folder / "nights.zip")
    return folder


@pytest.fixture
def served(site, archives):
    """The same archives on the server."""
    site.files = {path.name: path.read_bytes() for path in archives.iterdir()}
    return site


def run(*arguments):
    """Exit code, output and error line of the command."""
    result = CliRunner().invoke(cli.app, ["fetch", *map(str, arguments)])
    if isinstance(result.exception, OSError | ValueError):
        return 1, result.stdout, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("bapps", {"2afc/train/mix/judge/000001.npy", "2afc/val/cnn/p0/000000.png", "jnd/val/cnn/same/000000.npy"}),
        ("bapps-val", {"2afc/val/cnn/p0/000000.png", "jnd/val/traditional/p1/000001.png"}),
        ("bapps-jnd", {"jnd/val/traditional/same/000001.npy"}),
        ("nights", {"nights/data.csv", "nights/ref/000/003.png", "nights/distort/000/003_1.png"}),
    ],
)
def test_command_makes_the_folders_that_the_readers_expect_and_leaves_nothing_else(served, tmp_path, dataset, expected):
    data = tmp_path / "data"
    code, out, _ = run(dataset, "--data-dir", data, "--url", served.url, "--any-count")
    assert code == 0 and expected <= tree(data).keys()
    names = {archive.name for archive in DATASETS[dataset]}
    assert {name for name, *_ in served.asked} == names and len(served.asked) == len(names)
    folders = {archive.folder.split("/")[0] for archive in DATASETS[dataset]}
    assert {path.name for path in data.iterdir()} == folders | {".fetch.lock"}
    for name in names:
        assert f"SHA-256 of {name}: {hashlib.sha256(served.files[name]).hexdigest()}" in out


def test_readers_find_what_was_fetched(served, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    for dataset in ("bapps", "nights"):
        fetch(dataset, tmp_path, url=served.url, any_count=True)
    picture = torch.from_numpy(np.array(Image.open(PICTURE))).permute(2, 0, 1)
    sets = [bapps.triplets(tmp_path, "train"), bapps.triplets(tmp_path, "val"), bapps.pairs(tmp_path)]
    assert [len(data) for data in sets] == [6, 12, 4]
    assert sets[1].judge.tolist() == pytest.approx([0.6] * 12) and sets[2].same.tolist() == pytest.approx([0.6] * 4)
    assert [len(nights.triplets(tmp_path, split)) for split in ("train", "val", "test")] == [2, 1, 1]
    for data in (*sets, nights.triplets(tmp_path, "train", size=None)):
        torch.testing.assert_close(data[0].p1, picture / 255)


def test_second_command_downloads_nothing_and_says_so(served, tmp_path):
    command = ["bapps-val", "--data-dir", tmp_path / "data", "--url", served.url, "--any-count"]
    run(*command)
    before, asked = tree(tmp_path / "data"), len(served.asked)
    code, out, _ = run(*command)
    assert code == 0 and out.count("is complete already; nothing was downloaded") == 2
    assert len(served.asked) == asked and tree(tmp_path / "data") == before


def test_bapps_after_bapps_val_downloads_only_the_training_set(served, tmp_path):
    run("bapps-val", "--data-dir", tmp_path / "data", "--url", served.url, "--any-count")
    served.asked.clear()
    run("bapps", "--data-dir", tmp_path / "data", "--url", served.url, "--any-count")
    assert [name for name, *_ in served.asked] == ["twoafc_train.tar.gz"]


@pytest.mark.parametrize("form", ["{0}/nights.zip", "file://{0}/nights.zip", "{0}", "file://{0}"])
def test_local_archive_is_used_and_stays(archives, tmp_path, form):
    before = tree(archives)
    code, *_ = run("nights", "--data-dir", tmp_path / "data", "--url", form.format(archives), "--any-count")
    assert code == 0 and (tmp_path / "data" / "nights" / "data.csv").is_file()
    assert tree(archives) == before


def test_dropped_connection_is_continued_by_the_next_command(served, tmp_path):
    served.cuts = [500, 0, 0, 0, 0]
    command = ["bapps-jnd", "--data-dir", tmp_path / "data", "--url", served.url + "jnd.tar.gz", "--any-count"]
    code, _, error = run(*command)
    assert code == 1 and "500 bytes are kept in" in error and "\n" not in error
    assert run(*command)[0] == 0
    assert served.asked[-1][1] == "bytes=500-"


def test_trying_a_mirror_loses_nothing_of_the_first_download(served, tmp_path):
    served.cuts, command = [500, 0, 0, 0, 0], ["bapps-jnd", "--data-dir", tmp_path / "data", "--any-count", "--url"]
    run(*command, served.url)
    served.files["other/jnd.tar.gz"] = b"<html>Please log in</html>"
    assert "no archive" in run(*command, served.url + "other/")[2]
    assert run(*command, served.url)[0] == 0 and served.asked[-1][1] == "bytes=500-"


def test_archive_that_does_not_fit_unpacked_or_is_larger_than_published_is_refused(archives, tmp_path, monkeypatch):
    usage, size = shutil.disk_usage(tmp_path), (archives / "jnd.tar.gz").stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1.4 * size))
        assert "are needed in" in run("bapps-jnd", "--data-dir", tmp_path / "data", "--url", archives)[2]
    monkeypatch.setitem(DATASETS, "bapps-jnd", (dataclasses.replace(fetching.BAPPS_JND, size=1000.0),))
    assert "holds more than 2e-06 GB" in run("bapps-jnd", "--data-dir", tmp_path / "data", "--url", archives)[2]
    assert not (tmp_path / "data" / "jnd").exists()


def test_interrupted_unpacking_is_not_taken_for_finished_and_needs_no_new_download(served, tmp_path, monkeypatch):
    command = ["bapps-jnd", "--data-dir", tmp_path / "data", "--url", served.url, "--any-count"]
    copy, calls = shutil.copyfileobj, []

    def interrupted(source, file):
        calls.append(file)
        if len(calls) == 5:
            raise KeyboardInterrupt
        copy(source, file)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfileobj", interrupted)
        fetch("bapps-jnd", tmp_path / "data", url=served.url, any_count=True)
    assert not (tmp_path / "data" / "jnd").exists()
    left = tmp_path / "data" / ".jnd.unpacking"
    assert not left.exists()
    (left / "jnd" / "val").mkdir(parents=True)  # as a run that was killed leaves it
    (left / "jnd" / "val" / "half.png").write_bytes(b"ha")
    assert run(*command)[0] == 0 and len(served.asked) == 1
    assert len(tree(tmp_path / "data" / "jnd")) == 12 and not left.exists()


def test_wrong_checksum_is_refused_and_the_file_set_aside(served, tmp_path):
    good = hashlib.sha256(served.files["jnd.tar.gz"]).hexdigest()
    command = ["bapps-jnd", "--data-dir", tmp_path / "data", "--url", served.url, "--any-count", "--sha256"]
    code, _, error = run(*command, "0" * 64)
    assert code == 1 and f"wrong SHA-256 {good}; expected {'0' * 64}" in error
    (bad,) = (tmp_path / "data").glob("*.bad")
    assert bad.read_bytes() == served.files["jnd.tar.gz"] and not (tmp_path / "data" / "jnd").exists()
    code, out, _ = run(*command, good.upper())
    assert code == 0 and f"{good} (as expected)" in out and len(served.asked) == 2


def test_wrong_bytes_of_the_right_length_do_not_pass_the_publishers_checksum(served, tmp_path, monkeypatch):
    content = served.files["jnd.tar.gz"]
    published = dataclasses.replace(fetching.BAPPS_JND, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(DATASETS, "bapps-jnd", (published,))
    served.files["jnd.tar.gz"] = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    with pytest.raises(ValueError, match="wrong SHA-256"):
        fetch("bapps-jnd", tmp_path / "data", url=served.url, any_count=True)
    served.files["jnd.tar.gz"] = content
    fetch("bapps-jnd", tmp_path / "data", url=served.url, any_count=True)
    assert len(tree(tmp_path / "data" / "jnd")) == 12


def test_damaged_download_is_removed_but_a_local_archive_stays(served, archives, tmp_path):
    content = bytearray(served.files["jnd.tar.gz"])
    content[len(content) // 2] ^= 0x55
    served.files["jnd.tar.gz"] = bytes(content)
    (archives / "jnd.tar.gz").write_bytes(content)
    for place in (served.url, archives):
        code, _, error = run("bapps-jnd", "--data-dir", tmp_path / "data", "--url", place, "--any-count")
        assert code == 1 and "is damaged" in error
        assert [path.name for path in (tmp_path / "data").iterdir()] == [".fetch.lock"]
    assert (archives / "jnd.tar.gz").read_bytes() == content


def test_unexpected_number_of_files_names_its_source(served, tmp_path):
    command = ["nights", "--data-dir", tmp_path / "data", "--url", served.url]
    code, _, error = run(*command)
    assert code == 1 and "nights has 4 files ref/*/*.png" in error and "\n" not in error
    assert "dataset/README.md of github.com/ssundaram21/dreamsim says 20019 (--any-count accepts this)" in error
    assert not (tmp_path / "data" / "nights").exists()
    code, _, error = run(*command, "--any-count")
    assert code == 0 and len(served.asked) == 1, "the download was not kept for --any-count"


def test_published_numbers_are_accepted_up_to_their_rounding(archives, tmp_path, monkeypatch):
    for published, accepted in ((52, True), (53, False)):
        counts = {"val/cnn/p0/*.png": published, "val/traditional/same/*.npy": 2}
        mini = dataclasses.replace(fetching.BAPPS_JND, counts=counts)
        monkeypatch.setitem(DATASETS, "bapps-jnd", (mini,))
        code, out, error = run("bapps-jnd", "--data-dir", tmp_path / f"{published}", "--url", archives)
        assert (code == 0) == accepted
        assert "README of github.com/richzhang/PerceptualSimilarity says" in (out if accepted else error)


def test_incomplete_folder_of_the_user_is_left_alone(served, tmp_path):
    mine = tmp_path / "data" / "jnd" / "val" / "cnn" / "p0"
    mine.mkdir(parents=True)
    (mine / "0.png").write_text("mine")
    code, _, error = run("bapps-jnd", "--data-dir", tmp_path / "data", "--url", served.url)
    assert code == 1 and "exists, but jnd has 0 files" in error and "move it away" in error
    assert served.asked == [] and tree(tmp_path / "data" / "jnd") == {"val/cnn/p0/0.png": b"mine"}


def test_two_fetches_do_not_write_to_one_folder(served, tmp_path):
    with FileLock(tmp_path / ".fetch.lock"):
        code, _, error = run("bapps-jnd", "--data-dir", tmp_path, "--url", served.url)
    assert code == 1 and "another fetch is at work" in error and served.asked == []


def test_full_disk_is_said_and_the_download_kept(served, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["bapps-jnd", "--data-dir", tmp_path, "--url", served.url, "--any-count"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        code, _, error = run(*command)
    assert code == 1 and re.fullmatch(r"the disk of .* is full; make space and repeat .*", error)
    assert run(*command)[0] == 0 and len(served.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bappss"], "unknown data set 'bappss'; choose one of bapps, bapps-val, bapps-jnd, nights"),
        (["bapps-jnd", "--sha256", "abc"], "'abc' is no SHA-256"),
        (["bapps-jnd", "--url", "no such file.tar.gz"], "no such file.tar.gz does not exist"),
        (["bapps-jnd", "--url", "ftp://a/b.tar"], "neither an http nor a file address"),
        (["bapps", "--url", "http://127.0.0.1/x.tar.gz"], "has 3 archives; --url must be a folder"),
        (["bapps-jnd", "--url", "http://127.0.0.1:9/a b.tar.gz"], "is no address"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(tmp_path, arguments, message):
    code, _, error = run(*arguments, "--data-dir", tmp_path)
    assert code == 1 and message in error and "\n" not in error


def test_example_in_the_help_runs_against_a_mirror_and_a_missing_file_is_one_line_and_exit_code_1(served, tmp_path):
    text = CliRunner().invoke(cli.app, ["fetch", "--help"], terminal_width=200).stdout
    example = re.search(r"Example: python (-m course_lib fetch .*)", text)[1]
    command = [sys.executable, *shlex.split(example), "--url", served.url, "--any-count"]
    environment = os.environ | {"PYTHONPATH": str(repo_root())}
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60, "env": environment}
    done = subprocess.run(command, **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "datasets" / "2afc" / "val" / "cnn" / "judge").is_dir()
    served.files.clear()
    done = subprocess.run([*command, "--data-dir", "elsewhere"], **options)
    assert done.returncode == 1
    assert done.stderr == f"error: {served.url}jnd.tar.gz: the server says 404 Not Found; check the address\n"
