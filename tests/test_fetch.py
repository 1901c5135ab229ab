"""One file from the network: every way in which a transfer can fail, on loopback."""

import io
import os
import time
import zipfile
from types import SimpleNamespace

import pytest
from hazards import File, files_no_larger_than, leave_free

from kdas_book.data import fetch, unpack
from kdas_core import UserError

PIECE = 512 * 1024  # what gdown takes at a time; of a piece that breaks off nothing is kept
BODY = os.urandom(3_000_000)


def get_file(web, tmp_path, *paths):
    target = tmp_path / "file.zip"
    addresses = [web.address + path for path in paths]
    return fetch.fetch(addresses, target, "fetch it by hand"), target


def packed(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        zipped.writestr("x", content)
    return stream.getvalue()


def resumed_at(web, path):
    """The positions from which the server was asked to go on."""
    return [int(asked[6:-1]) for asked in web.ranges_of(path) if asked]


@pytest.mark.parametrize("step", ["cut", "stall"])
def test_a_transfer_that_breaks_off_or_stands_still_goes_on_where_it_was(web, tmp_path, step):
    web.files["/f"] = File(BODY, steps=[(step, 1_200_000), (step, 1_000_000)])
    start = time.monotonic()
    _, target = get_file(web, tmp_path, "/f")
    assert target.read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["file.zip"]
    assert resumed_at(web, "/f") == [2 * PIECE, 3 * PIECE]
    assert time.monotonic() - start < 5


def test_a_server_that_knows_no_ranges_gives_the_file_from_the_start(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[("cut", 1_200_000)], ranges=False)
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    assert resumed_at(web, "/f") and web.ranges_of("/f")[-1] is None


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_between_two_runs_is_never_patched_together(
    web, tmp_path, heeds_if_range
):
    one, other = (packed(os.urandom(len(BODY))) for _ in range(2))  # of the same length
    web.files["/f"] = File(one, steps=[("cut", 1_200_000), 404, 404])
    with pytest.raises(UserError, match="404"):
        get_file(web, tmp_path, "/f")
    assert any(p.suffix == ".part" for p in tmp_path.iterdir())
    web.files["/f"] = File(other, heeds_if_range=heeds_if_range)
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == other


def test_failures_count_only_while_nothing_new_arrives(web, tmp_path):
    cut = ("cut", PIECE + 1)
    web.files["/f"] = File(BODY, steps=[*[cut] * (fetch.RETRIES + 1), "all", cut, cut])
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    assert resumed_at(web, "/f") == [PIECE * i for i in range(1, 6)]


def test_a_file_that_became_shorter_is_fetched_anew(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[("cut", 1_200_000), 404, 404], headers={"ETag": ""})
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
    with pytest.raises(UserError, match=r"answered 500 .*fetch it by hand"):
        get_file(web, tmp_path, "/g")
    assert len(web.ranges_of("/g")) == 1 + len(fetch.PAUSES)


def test_a_server_that_always_stands_still_ends_in_a_sentence(web, tmp_path):
    web.files["/f"] = File(BODY, steps=[("stall", 0)] * 9)
    start = time.monotonic()
    with pytest.raises(UserError, match="stood still after 0.0 MB"):
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
    "file, fact",
    [
        (File(steps=[("page", "Please sign in")] * 9), "what came is no zip archive"),
        (
            File(b"\n<!DOCTYPE html><html>no longer here</html>"),  # under the name of an archive
            "a web page came instead of the file",
        ),
    ],
)
def test_a_web_page_is_no_archive_and_the_mirror_is_tried(web, tmp_path, file, fact):
    web.files["/f"] = file
    web.files["/mirror"] = File(packed(BODY))
    addresses = [f"{web.address}/f", f"{web.address}/mirror"]
    with pytest.raises(UserError, match=fact):
        fetch.fetch(addresses[:1], tmp_path / "file.zip", "", archive=True)
    assert list(tmp_path.iterdir()) == []
    fetch.fetch(addresses, tmp_path / "file.zip", "", archive=True)
    assert (tmp_path / "file.zip").read_bytes() == web.files["/mirror"].body


def test_redirects_are_followed_and_a_circle_of_them_is_not(web, tmp_path):
    web.files["/f"] = File(steps=[("redirect", "/g")])
    web.files["/g"] = File(BODY)
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    web.files["/round"] = File(steps=[("redirect", "/round")] * 99)
    with pytest.raises(UserError, match="redirects"):
        get_file(web, tmp_path, "/round")


def test_a_redirect_to_an_unprotected_address_is_refused(web, tmp_path, monkeypatch):
    web.stand_in_for(monkeypatch, "polyps.example")
    web.files["/f"] = File(BODY, steps=["all", ("redirect", web.address + "/g")])
    web.files["/g"] = File(BODY)
    addresses = ["https://polyps.example/f"]
    fetch.fetch(addresses, tmp_path / "a", "")
    with pytest.raises(UserError, match="unprotected"):
        fetch.fetch(addresses, tmp_path / "b", "")


def test_without_a_network_it_ends_at_once_with_what_to_do_by_hand(web, tmp_path):
    web.close()
    start = time.monotonic()
    with pytest.raises(
        UserError, match=r"127.0.0.1.*not reachable.*; fetch it by hand\.$"
    ) as error:
        get_file(web, tmp_path, "/f", "/mirror")
    assert time.monotonic() - start < 2
    assert "/mirror" not in str(error.value), "a host that cannot be reached is asked once"


def test_a_full_disk_stops_the_transfer_and_what_came_is_kept(web, tmp_path, monkeypatch):
    web.files["/f"] = File(BODY)
    with (
        files_no_larger_than(1_200_000),
        pytest.raises(UserError, match=r"cannot be written.*make room"),
    ):
        get_file(web, tmp_path, "/f")
    assert not (tmp_path / "file.zip").exists()
    assert get_file(web, tmp_path, "/f")[1].read_bytes() == BODY
    assert resumed_at(web, "/f") == [1_200_000]
    leave_free(monkeypatch, unpack, 300_000)
    web.files["/g"] = File(BODY)
    with pytest.raises(UserError, match=r"the download needs 69.6 MB and .* has 0.3 MB free"):
        get_file(web, tmp_path, "/g")


# --- Google Drive, as far as that can be tried without Google: gdown reads pages that we wrote after Drive's ----------

DRIVE_PAGE = """<html><form id="download-form" action="https://drive.google.com/big" method="get">
<input type="hidden" name="id" value="ID"><input type="hidden" name="confirm" value="t"></form></html>"""


@pytest.mark.parametrize(
    "address", ["drive:ID", "https://drive.google.com/file/d/ID/view?usp=sharing"]
)
def test_drive_asks_for_a_confirmation_and_the_transfer_behind_it_resumes(
    web, tmp_path, monkeypatch, address
):
    web.stand_in_for(monkeypatch, "drive.google.com")
    web.files["/uc"] = File(steps=[("page", DRIVE_PAGE)] * 9)
    served = {"Content-Disposition": 'attachment; filename="f"'}
    web.files["/big"] = File(BODY, steps=[("cut", 1_200_000)], headers=served)
    fetch.fetch([address], tmp_path / "f", "")
    assert (tmp_path / "f").read_bytes() == BODY
    assert [path for path, _ in web.asked] == ["/uc", "/big", "/big"]
    assert resumed_at(web, "/big") == [2 * PIECE]


@pytest.mark.parametrize(
    "page, reason",
    [
        (
            '<p class="uc-error-subcaption">Too many users have viewed this file</p>',
            "Too many users have viewed",
        ),
        ("<html>Sign in to continue</html>", "Cannot retrieve the public link"),
        ('<form id="download-form"></form>', "does not hand the file out"),  # gdown trips over it
    ],
)
def test_drive_that_does_not_hand_the_file_out_is_told_with_its_reason(
    web, tmp_path, monkeypatch, page, reason
):
    web.stand_in_for(monkeypatch, "drive.google.com")
    web.files["/uc"] = File(steps=[("page", page)] * 9)
    with pytest.raises(
        UserError, match=f"https://drive.google.com/file/d/ID/view: .*{reason}.*; by hand"
    ):
        fetch.fetch(["drive:ID"], tmp_path / "f", "by hand")


@pytest.mark.parametrize("installed", [None, SimpleNamespace(__version__="5.2.2")])
def test_without_a_gdown_that_resumes_with_care_the_way_to_it_is_named(
    web, tmp_path, monkeypatch, installed
):
    monkeypatch.setattr(fetch, "gdown", installed)
    with pytest.raises(UserError, match=r'"pip install kdas_core\[download\]" brings it'):
        get_file(web, tmp_path, "/f")
    assert not web.asked and not web.looked
