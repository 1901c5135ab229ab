"""Fetching and unpacking the real images, against a server on loopback that misbehaves in every way we could think of."""

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256

import pytest
from webserver import File, WebServer

from kdas_core import UserError
from kdas_core.cli import main
from kdas_core.data import archives, download, fetch
from kdas_core.data.archives import unpack
from kdas_core.data.pairs import index_pairs

HASTE = fetch.Patience(connect=1, read=0.3, pause=0.01, attempts=3)
BODY = os.urandom(600_000)


@pytest.fixture
def web():
    server = WebServer()
    yield server
    server.close()


def get_file(web, tmp_path, *paths, patience=HASTE):
    target = tmp_path / "file.zip"
    return fetch.fetch([web.address + path for path in paths], target, "fetch it by hand", patience), target


@contextmanager
def files_no_larger_than(size):
    """A disk that is full, as the operating system says it: writing beyond the limit fails."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- one file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["cut", "stall"])
def test_a_transfer_that_breaks_off_or_stands_still_goes_on_where_it_was(web, tmp_path, step):
    web.files["/f"] = File(BODY, steps=[(step, 300_000), (step, 200_000)])
    start = time.monotonic()
    _, target = get_file(web, tmp_path, "/f")
    assert target.read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["file.zip"]
    first, second, third = web.ranges_of("/f")
    positions = [int(asked[6:-1]) for asked in (second, third)]
    assert first is None and 200_000 < positions[0] <= 300_000 and positions[0] < positions[1] <= 500_000
    assert time.monotonic() - start < 5


def test_a_server_that_knows_no_ranges_gives_the_file_from_the_start(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[("cut", 300_000)], ranges=False)
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    assert web.ranges_of("/f")[1] is not None


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_between_two_runs_is_never_patched_together(web, tmp_path, heeds_if_range):
    web.files["/f"] = File(BODY, steps=[("cut", 300_000), 404])
    with pytest.raises(UserError, match="404"):
        get_file(web, tmp_path, "/f")
    assert any(p.suffix == ".part" for p in tmp_path.iterdir())
    other = os.urandom(len(BODY))  # of the same length, so only the tag tells
    web.files["/f"] = File(other, heeds_if_range=heeds_if_range)
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == other


def test_a_file_that_became_shorter_is_fetched_anew(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[("cut", 300_000), 404], headers={"ETag": ""})
    with pytest.raises(UserError):
        get_file(web, tmp_path, "/f")
    web.files["/f"] = File(BODY[:100_000], headers={"ETag": ""})
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY[:100_000]


def test_a_transfer_without_a_length_is_taken_as_it_comes(web, tmp_path):
    web.files["/f"] = File(BODY, length=False)
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY


def test_a_server_in_trouble_is_asked_again_and_then_given_up(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[500, 503, "all"])
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    web.files["/g"] = File(BODY, steps=[500] * 9)
    with pytest.raises(UserError, match=r"answered 500 .*3 times in a row.*fetch it by hand"):
        get_file(web, tmp_path, "/g")
    assert len(web.ranges_of("/g")) == HASTE.attempts


def test_a_server_that_says_when_to_come_back_is_heeded(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[429], headers={"Retry-After": "1"})
    start = time.monotonic()
    get_file(web, tmp_path, "/f")
    assert 1 <= time.monotonic() - start < 3


def test_a_server_that_always_stands_still_ends_in_a_sentence(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[("stall", 0)] * 9)
    start = time.monotonic()
    with pytest.raises(UserError, match="stood still after 0.0 MB, 3 times in a row"):
        get_file(web, tmp_path, "/f")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again_and_the_mirror_is_tried(web, tmp_path, status):
    web.files["/f"] = File(BODY, steps=[status] * 5)
    web.files["/mirror"] = File(BODY)
    address, target = get_file(web, tmp_path, "/f", "/mirror")
    assert address.endswith("/mirror") and target.read_bytes() == BODY
    assert [path for path, _ in web.asked] == ["/f", "/mirror"]
    with pytest.raises(UserError, match=f"answered {status}"):
        get_file(web, tmp_path, "/f")


@pytest.mark.parametrize(
    "file",
    [
        File(steps=[("page", "<html>Please sign in</html>")] * 9),
        File(b"\n<!DOCTYPE html><html>no longer here</html>"),  # a page under the name of an archive
    ],
)
def test_a_web_page_is_no_archive(web, tmp_path, file):
    web.files["/f"] = file
    with pytest.raises(UserError, match="a web page came instead of the file"):
        get_file(web, tmp_path, "/f")
    assert not (tmp_path / "file.zip").exists()


def test_redirects_are_followed_and_a_circle_of_them_is_not(web, tmp_path):
    web.files["/f"] = File(steps=[("redirect", "/g")])
    web.files["/g"] = File(BODY)
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    web.files["/round"] = File(steps=[("redirect", "/round")] * 99)
    with pytest.raises(UserError, match="redirects"):
        get_file(web, tmp_path, "/round")


def test_a_redirect_to_an_unprotected_address_is_refused(web, tmp_path, monkeypatch):
    web.stand_in_for(monkeypatch, "polyps.example")
    web.files["/f"] = File(BODY, steps=["all", ("redirect", web.address + "/f")])
    addresses = ["https://polyps.example/f"]
    fetch.fetch(addresses, tmp_path / "a", "", HASTE)
    with pytest.raises(UserError, match="unprotected"):
        fetch.fetch(addresses, tmp_path / "b", "", HASTE)


def test_without_a_network_it_ends_at_once_with_what_to_do_by_hand(web, tmp_path):
    web.close()
    start = time.monotonic()
    with pytest.raises(UserError, match=r"127.0.0.1.*not reachable.*; fetch it by hand\.$") as error:
        get_file(web, tmp_path, "/f", "/mirror")
    assert time.monotonic() - start < 2
    assert "/mirror" not in str(error.value), "a host that cannot be reached is asked once"


def test_a_full_disk_stops_the_transfer_and_what_came_is_kept(web, tmp_path, monkeypatch):
    web.files["/f"] = File(BODY)
    with files_no_larger_than(200_000), pytest.raises(UserError, match=r"could not be written.*make room"):
        get_file(web, tmp_path, "/f")
    assert not (tmp_path / "file.zip").exists()
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    assert int(web.ranges_of("/f")[1][6:-1]) == 200_000
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 300_000))
    web.files["/g"] = File(BODY)
    with pytest.raises(UserError, match=r"has 0.3 MB free and the download needs 67.7 MB"):
        get_file(web, tmp_path, "/g")


# --- Google Drive, as far as that can be tried without Google: gdown reads pages that we wrote after Drive's ----------

DRIVE_PAGE = """<html><form id="download-form" action="https://drive.google.com/big" method="get">
<input type="hidden" name="id" value="ID"><input type="hidden" name="confirm" value="t"></form></html>"""


def test_drive_asks_for_a_confirmation_and_the_transfer_behind_it_resumes(web, tmp_path, monkeypatch):
    web.stand_in_for(monkeypatch, "drive.google.com")
    web.files["/uc"] = File(steps=[("page", DRIVE_PAGE)] * 9)
    web.files["/big"] = File(BODY, steps=[("cut", 300_000)])
    fetch.fetch(["drive:ID"], tmp_path / "f", "", HASTE)
    assert (tmp_path / "f").read_bytes() == BODY
    assert [path for path, _ in web.asked] == ["/uc", "/big"] * 2 and web.ranges_of("/big")[1] is not None


@pytest.mark.parametrize(
    "page, reason",
    [
        ('<p class="uc-error-subcaption">Too many users have viewed this file</p>', "Too many users have viewed"),
        ("<html>Sign in to continue</html>", "Cannot retrieve the public link"),
        ('<form id="download-form"></form>', "does not hand the file out"),  # gdown trips over it
    ],
)
def test_drive_that_does_not_hand_the_file_out_is_told_with_its_reason(web, tmp_path, monkeypatch, page, reason):
    web.stand_in_for(monkeypatch, "drive.google.com")
    web.files["/uc"] = File(steps=[("page", page)] * 9)
    with pytest.raises(UserError, match=f"https://drive.google.com/file/d/ID/view: .*{reason}.*; by hand"):
        fetch.fetch(["drive:ID"], tmp_path / "f", "by hand", HASTE)


# --- unpacking --------------------------------------------------------------------------------------------------------


def make_zip(path, members):
    """``members``: (name or ZipInfo, content) in order; a name may occur twice."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members:
            zipped.writestr(name, content)
    return path


def special(name, mode=0, flags=0):
    info = zipfile.ZipInfo(name)
    info.external_attr, info.flag_bits = mode << 16, flags
    return info


def unpacked(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_wrapping_folders_traces_of_file_browsers_and_the_singular_go(tmp_path):
    names = [
        "A/B/image/1.png",
        "A/B/mask/1.png",
        "A/B/image/Thumbs.db",
        "A/B/.DS_Store",
        "__MACOSX/A/B/image/._1.png",
        "A/",
    ]
    archive = make_zip(tmp_path / "a.zip", [(name, "x") for name in names])
    assert unpack(archive, tmp_path / "out") == 2
    assert unpacked(tmp_path / "out") == ["images/1.png", "masks/1.png"]


def test_a_folder_of_the_layout_is_no_wrapping(tmp_path):
    for i, (name, roots) in enumerate([("Kvasir/images/1.png", {"Kvasir"}), ("images/1.png", {"images"})]):
        archive = make_zip(tmp_path / f"{i}.zip", [("Top/" + name, "x")])
        unpack(archive, tmp_path / str(i), roots)
        assert unpacked(tmp_path / str(i)) == [name]


def test_backslashes_of_windows_are_separators(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [(special("A\\images\\1.png"), "x"), (special("A\\masks\\1.png"), "y")])
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "masks" / "1.png").read_text() == "y"


@pytest.mark.parametrize(
    "members, reason",
    [
        ([("images/1.png", "x"), ("../evil", "x")], "leads out"),
        ([("images/1.png", "x"), ("images/../../evil", "x")], "leads out"),
        ([("images/1.png", "x"), (special("..\\evil"), "x")], "leads out"),
        ([("/evil", "x")], "leads out"),
        ([(special("C:\\evil"), "x")], "leads out"),
        ([("images/1.png", "x"), (special("evil", stat.S_IFLNK | 0o777), "/etc/passwd")], "a link"),
        ([(special("evil", stat.S_IFIFO | 0o666), "")], "a device"),
        ([("images/1.png", "x"), ("images/1.png", "y")], "twice"),
        ([("images/1.png", "x"), ("images/1.PNG", "y")], "one name on many systems"),
        ([("images/\u00e4.png", "x"), ("images/a\u0308.png", "y")], "one name on many systems"),
        ([("image/1.png", "x"), ("images/1.png", "y")], "one name on many systems"),
        ([("images", "x"), ("images/1.png", "y")], "a file and a folder of one name"),
        ([(".DS_Store", "x")], "holds no files"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_one_unsafe_member_is_refused_as_a_whole(tmp_path, members, reason):
    archive = make_zip(tmp_path / "a.zip", members)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=reason):
        unpack(archive, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before and not (tmp_path.parent / "evil").exists()


def test_an_encrypted_member_is_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("images/1.png", "x")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    archive.write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        unpack(archive, tmp_path / "out")


def test_a_bomb_is_refused_by_its_sizes_and_a_lie_about_them_by_its_checksum(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("images/1.png", bytes(5_000_000)), ("images/2.png", "x")])
    assert archive.stat().st_size < 10_000
    monkeypatch.setattr(archives, "MOST_BYTES", 4_000_000)
    with pytest.raises(UserError, match=r"unpacks to 0.0 GB, more than"):
        unpack(archive, tmp_path / "out")
    data = bytearray(archive.read_bytes())
    size = data.index(b"PK\x01\x02") + 24
    data[size : size + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    archive = make_zip(tmp_path / "a.zip", [(f"images/{i}.png", "x") for i in range(4)])
    with pytest.raises(UserError, match="4 members, more than the 3 allowed"):
        unpack(archive, tmp_path / "out")


def test_what_is_no_zip_is_called_by_its_name(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    whole = make_zip(tmp_path / "whole", [("images/1.png", os.urandom(9999))])
    heads = {
        "rar": b"Rar!\x1a\x07",
        "7z": b"7z\xbc\xaf\x27\x1c",
        "page": b" <!doctype html>",
        "cut": whole.read_bytes()[:5000],
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head)
    (tmp_path / "empty").touch()
    said = {"tar": "is a tar archive", "rar": "is a rar", "7z": "is a 7z", "page": "is a web page"}
    for name in ("tar", *heads, "empty"):
        with pytest.raises(UserError, match=said.get(name, "is not a zip archive, or is cut off")):
            unpack(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_damaged_member_leaves_nothing_behind(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("images/1.png", "x" * 99), ("images/2.png", os.urandom(9999))])
    data = bytearray(archive.read_bytes())
    data[5000] ^= 255
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip is damaged .*remove it"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_while_unpacking_leaves_nothing_behind(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("images/1.png", "x"), ("images/2.png", os.urandom(500_000))])
    with files_no_larger_than(100_000), pytest.raises(UserError, match=r"could not be unpacked.*archive is kept"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 300_000))
    with pytest.raises(UserError, match=r"unpacks to 0.5 MB .* has 0.3 MB free"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_in_the_place_is_never_removed(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("images/1.png", "x")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="could not be made"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()


# --- data sets --------------------------------------------------------------------------------------------------------


def archive_of(folder, top, singular=False):
    """A folder of pairs as the bytes of an archive, wrapped in a folder, as its authors would have packed it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = str(path.relative_to(folder))
            if singular:
                name = name.replace("images/", "image/").replace("masks/", "mask/")
            zipped.write(path, f"{top}/{name}")
        zipped.writestr(f"__MACOSX/{top}/._x", "x")
    return stream.getvalue()


@pytest.fixture
def sets(web, polyps, tmp_path):
    """The table of sets with small archives on the local server, as a manifest."""
    web.files["/train.zip"] = File(archive_of(polyps / "TrainDataset", "TrainDataset", singular=True))
    web.files["/test.zip"] = File(archive_of(polyps / "TestDataset", "TestDataset"))
    tests = dict.fromkeys(download.FULL_COUNTS, 3)
    manifest = tmp_path / "mirrors.yaml"
    entries = {
        "train": {"addresses": [f"{web.address}/train.zip"], "counts": {"": 10}},
        "test": {"addresses": [f"{web.address}/test.zip"], "counts": tests},
    }
    manifest.write_text(json.dumps(entries))  # JSON is YAML
    return manifest


def kdas(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["kdas", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_the_command_brings_both_sets_into_the_layout_and_then_leaves_them(
    web, sets, polyps, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "data"
    command = ("data", "get", "--manifest", sets, "--out", out)
    assert kdas(monkeypatch, *command, "--yes") == 0
    said = capsys.readouterr().out
    assert "research and education" in said and said.index("research") < said.index("SHA-256")
    assert index_pairs(out / "TrainDataset").names == index_pairs(polyps / "TrainDataset").names
    for name in download.FULL_COUNTS:
        assert len(index_pairs(out / "TestDataset" / name)) == 3
    for pair in index_pairs(out / "TrainDataset"):
        assert pair.image.read_bytes() == (polyps / "TrainDataset" / "images" / pair.image.name).read_bytes()
    note = json.loads((out / "downloads.json").read_text())["TrainDataset.zip"]
    body = web.files["/train.zip"].body
    assert note["sha256"] == sha256(body).hexdigest() and note["bytes"] == len(body)
    assert note["address"] == f"{web.address}/train.zip" and note["date"].startswith("20")
    assert {p.name for p in (out / "downloads").iterdir()} == {".lock", "TrainDataset.zip", "TestDataset.zip"}

    asked = len(web.asked)
    assert kdas(monkeypatch, *command) == 0, "nothing is missing, so nobody is asked"
    said = capsys.readouterr().out
    assert said.count("complete already") == 2 and "terms" not in said and len(web.asked) == asked


def test_nothing_is_fetched_before_the_terms_are_agreed_to(web, sets, tmp_path, monkeypatch, capsys):
    command = ("data", "get", "train", "--manifest", sets, "--out", tmp_path / "data")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    assert kdas(monkeypatch, *command) == 2
    shown = capsys.readouterr()
    assert "may be used commercially" in shown.out and "add --yes" in shown.err and not web.asked
    answers = iter(["n\n", "y\n"])
    for code in (2, 0):
        terminal = io.StringIO(next(answers))
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", terminal)
        assert kdas(monkeypatch, *command) == code
        assert bool(web.asked) is (code == 0)


def source_of(sets, name="train"):
    return download.choose([name], sets)[0]


def test_a_partial_set_is_named_and_not_touched(web, sets, polyps, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(polyps / "TestDataset", out / "TestDataset")
    assert download.is_complete(source_of(sets, "test"), out)
    shutil.rmtree(out / "TestDataset" / "Kvasir")
    before = unpacked(out)
    with pytest.raises(UserError, match=r"TestDataset is there but not complete \(Kvasir is missing\).*move it away"):
        download.get(source_of(sets, "test"), out, HASTE)
    pair = index_pairs(out / "TestDataset" / "CVC-300")[0]
    os.remove(pair.mask)
    with pytest.raises(UserError, match=r"CVC-300.* has no mask"):
        download.get(source_of(sets, "test"), out, HASTE)
    assert len(unpacked(out)) == len(before) - 1 and not web.asked


def test_an_empty_folder_is_no_data(sets, tmp_path):
    (tmp_path / "data" / "TrainDataset").mkdir(parents=True)
    download.get(source_of(sets), tmp_path / "data", HASTE)
    assert len(index_pairs(tmp_path / "data" / "TrainDataset")) == 10


def test_another_number_of_pairs_is_told_and_the_archive_is_kept(sets, tmp_path):
    source = replace(source_of(sets), counts={"": 1450})
    with pytest.raises(UserError, match=r"TrainDataset.zip is not what it should be \(10 pairs instead of 1450\)"):
        download.get(source, tmp_path / "data", HASTE)
    assert unpacked(tmp_path / "data") == ["downloads/.lock", "downloads/TrainDataset.zip"]


def test_pairs_that_do_not_fit_are_told_by_their_names_in_the_archive(web, polyps, sets, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(polyps / "TrainDataset", broken)
    os.remove(index_pairs(broken)[3].mask)
    web.files["/train.zip"] = File(archive_of(broken, "TrainDataset"))
    with pytest.raises(UserError, match=r"TrainDataset.zip is not what it should be \(images/\S+ has no mask"):
        download.get(source_of(sets), tmp_path / "data", HASTE)


def test_an_archive_saved_by_hand_is_used_without_a_network(web, sets, tmp_path):
    out = tmp_path / "data"
    (out / "downloads").mkdir(parents=True)
    (out / "downloads" / "TrainDataset.zip").write_bytes(web.files["/train.zip"].body)
    web.close()
    assert "10 pairs" in download.get(source_of(sets), out, HASTE)
    with pytest.raises(UserError) as error:
        download.get(source_of(sets, "test"), out, HASTE)
    for step in (
        f"open {web.address}/test.zip in a browser",
        f"save the file as {out / 'downloads' / 'TestDataset.zip'}",
    ):
        assert step in str(error.value)


def test_an_archive_that_changed_is_refused_with_both_digests(web, sets, tmp_path):
    out, source = tmp_path / "data", source_of(sets)
    download.get(source, out, HASTE)
    first = sha256(web.files["/train.zip"].body).hexdigest()
    shutil.rmtree(out / "TrainDataset")
    (out / "downloads" / "TrainDataset.zip").unlink()
    web.files["/train.zip"].body += b"\0"  # still a sound archive, but another
    second = sha256(web.files["/train.zip"].body).hexdigest()
    with pytest.raises(UserError, match=f"{second}, and .*downloads.json notes {first}"):
        download.get(source, out, HASTE)
    assert not (out / "TrainDataset").exists()
    with pytest.raises(UserError, match=f"{second}, and the manifest says {'0' * 64}"):
        download.get(replace(source, sha256="0" * 64), out, HASTE)


def test_a_ledger_that_cannot_be_read_is_named(sets, tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    (out / "downloads.json").write_text("[1")
    with pytest.raises(UserError, match="downloads.json cannot be read"):
        download.get(source_of(sets), out, HASTE)


def test_two_at_once_do_not_write_into_each_other(sets, tmp_path):
    from filelock import FileLock

    folder = tmp_path / "data" / "downloads"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="Another .* at work"):
        download.get(source_of(sets), tmp_path / "data", HASTE)


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_killed_goes_on_where_it_was(web, sets, tmp_path, stop):
    out = tmp_path / "data"
    stream = io.BytesIO(web.files["/train.zip"].body)
    with zipfile.ZipFile(stream, "a") as zipped:
        zipped.writestr("TrainDataset/notes.bin", os.urandom(300_000))
    web.files["/train.zip"].body = stream.getvalue()
    web.files["/train.zip"].steps = [("stall", 200_000)]
    command = [sys.executable, "-m", "kdas_core.cli", "data", "get", "train", "--yes", "--manifest", sets, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any(p.stat().st_size > 100_000 for p in out.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    assert process.wait(10) != 0
    assert not (out / "TrainDataset").exists() and not (out / "downloads" / "TrainDataset.zip").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert len(index_pairs(out / "TrainDataset")) == 10 and int(web.ranges_of("/train.zip")[1][6:-1]) > 100_000


@pytest.mark.parametrize(
    "text, reason",
    [
        ("train: {address: x}", "there is no field address; there are addresses"),
        ("mine: {folder: a, archive: a.zip}", "the field addresses is missing"),
        ("train: {addresses: x}", "a list of addresses"),
        ("train: {counts: {a: b}}", "numbers of pairs"),
        ("train: {folder: ../x}", "plain names"),
        ("train: {folder: /x}", "plain names"),
        ("train: {archive: ../x.zip}", "plain names"),
        ("- train", "by name"),
        ("train: {", "could not be read as YAML"),
    ],
)
def test_a_manifest_that_is_wrong_is_told_in_a_sentence(tmp_path, text, reason):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(UserError, match=reason):
        download.choose([], tmp_path / "m.yaml")


def test_the_table_names_the_benchmark_and_a_manifest_changes_only_what_it_names(tmp_path):
    train, test = download.choose()
    assert sum(train.counts.values()) == 1450 and sum(test.counts.values()) == 60 + 62 + 100 + 380 + 196
    (tmp_path / "m.yaml").write_text("test: {addresses: [https://mirror.example/t.zip]}")
    (mirrored,) = download.choose(["test", "test"], tmp_path / "m.yaml")
    assert mirrored == replace(test, addresses=("https://mirror.example/t.zip",))
    with pytest.raises(UserError, match='no data set "polyps".*train, test, kvasir-seg'):
        download.choose(["polyps"])


def test_real_training_images_are_seen_as_complete(real_data, tmp_path):
    (train,) = download.choose(["train"])
    assert download.is_complete(train, real_data)
    with pytest.raises(UserError, match="ETIS-LaribPolypDB has 20 pairs instead of 196"):
        download.is_complete(download.choose(["test"])[0], real_data)
