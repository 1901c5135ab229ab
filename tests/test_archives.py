"""Unpacking archives that are unsafe, damaged or too large."""

import io
import os
import stat
import tarfile
import zipfile

import pytest
from hazards import files_no_larger_than, leave_free

from kdas_book.data import unpack as archives
from kdas_book.data.unpack import unpack
from kdas_core import UserError


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
    unpack(archive, tmp_path / "out")
    assert unpacked(tmp_path / "out") == ["images/1.png", "masks/1.png"]


def test_a_folder_of_the_layout_is_no_wrapping(tmp_path):
    for i, (name, roots) in enumerate(
        [("Kvasir/images/1.png", {"Kvasir"}), ("images/1.png", {"images"})]
    ):
        archive = make_zip(tmp_path / f"{i}.zip", [("Top/" + name, "x")])
        unpack(archive, tmp_path / str(i), roots)
        assert unpacked(tmp_path / str(i)) == [name]


def test_backslashes_of_windows_are_separators(tmp_path):
    archive = make_zip(
        tmp_path / "a.zip", [(special("A\\images\\1.png"), "x"), (special("A\\masks\\1.png"), "y")]
    )
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
    with pytest.raises(UserError, match="encrypted .*nothing was unpacked"):
        unpack(archive, tmp_path / "out")


def test_deflate64_is_named_with_the_way_out_and_nothing_is_unpacked(tmp_path):
    members = [("images/1.png", "x"), ("images/2.png", "x" * 99)]
    archive = make_zip(tmp_path / "a.zip", members)
    data = bytearray(archive.read_bytes())
    data[data.rindex(b"PK\x03\x04") + 8] = data[data.rindex(b"PK\x01\x02") + 10] = 9
    archive.write_bytes(data)
    with pytest.raises(
        UserError, match=r"packed by Deflate64.*pack it again.*nothing was unpacked"
    ):
        unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_bomb_is_refused_by_its_sizes_and_a_lie_about_them_by_its_checksum(tmp_path, monkeypatch):
    archive = make_zip(
        tmp_path / "a.zip", [("images/1.png", bytes(5_000_000)), ("images/2.png", "x")]
    )
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
    archive = make_zip(
        tmp_path / "a.zip", [("images/1.png", "x" * 99), ("images/2.png", os.urandom(9999))]
    )
    data = bytearray(archive.read_bytes())
    data[5000] ^= 255
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip is damaged.*remove it"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_while_unpacking_leaves_nothing_behind(tmp_path, monkeypatch):
    archive = make_zip(
        tmp_path / "a.zip", [("images/1.png", "x"), ("images/2.png", os.urandom(500_000))]
    )
    with (
        files_no_larger_than(100_000),
        pytest.raises(UserError, match=r"could not be unpacked.*archive is kept"),
    ):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    leave_free(monkeypatch, archives, 300_000)
    with pytest.raises(UserError, match=r"a\.zip needs 67.6 MB and .* has 0.3 MB free"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_in_the_place_is_never_removed(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("images/1.png", "x")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="cannot be written"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()
