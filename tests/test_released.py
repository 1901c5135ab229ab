"""Released weights: put in place only when they fit, from a file, from Drive's pages (ours), from a hub (ours)."""

import io
import sys
from hashlib import sha256

import pytest
import timm
import torch
from conftest import kdas
from hazards import File
from huggingface_hub import constants
from safetensors.torch import save

from kdas_book.data import released_weights as released
from kdas_core import UserError
from kdas_core.models import build
from kdas_core.models.imagenet import hub_file

FILE_ID = "1" * 33  # as long as Drive's


@pytest.fixture
def hub(web, tmp_path, monkeypatch):
    """huggingface_hub asks the local server, and keeps its cache in a folder of the test."""
    monkeypatch.setattr(constants, "ENDPOINT", web.address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        web.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(released, "BACKBONES", ("pvt_v2_b0",))
    return web


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# --- the teacher ------------------------------------------------------------------------------------------------------


def test_a_file_is_taken_once_it_fits_and_then_left(tmp_path, released_file, monkeypatch, capsys):
    file, out = released_file("teacher", 1), tmp_path / "teacher_weights"
    command = ("weights", "get", "polyp_pvt", "--from", file, "--out", out)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # no terminal
    assert kdas(monkeypatch, *command) == 2 and not out.exists()
    assert "commercial use with their permission" in capsys.readouterr().out
    assert kdas(monkeypatch, *command, "--yes") == 0
    assert (out / "PolypPVT.pth").read_bytes() == file.read_bytes() and file.exists()
    assert names(out) == ["PolypPVT.pth", "downloads.json"]
    assert sha256(file.read_bytes()).hexdigest() in (out / "downloads.json").read_text()
    build("teacher", weights=out / "PolypPVT.pth")
    assert kdas(monkeypatch, *command) == 0
    assert "left as it is" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["student", "cut", "code", "absent"])
def test_a_file_that_does_not_fit_never_comes_into_place(tmp_path, released_file, kind):
    file, out = tmp_path / "given.pth", tmp_path / "teacher_weights"
    if kind == "student":
        file.write_bytes(released_file("student", 1).read_bytes())
    elif kind == "cut":
        file.write_bytes(released_file("teacher", 1).read_bytes()[:100_000])
    elif kind == "code":
        torch.save({"weight": print}, file)
    said = {
        "student": "another network",
        "cut": "damaged",
        "code": "foreign code",
        "absent": "does not exist",
    }[kind]
    with pytest.raises(UserError, match=f"given.pth.*{said}"):
        released.get_polyp_pvt(out, str(file))
    assert names(out) == []


def test_a_changed_file_is_refused_with_both_digests(tmp_path, released_file):
    first, second = released_file("teacher", 1), released_file("teacher", 2)
    digests = [sha256(file.read_bytes()).hexdigest() for file in (first, second)]
    released.get_polyp_pvt(tmp_path, str(first))
    (tmp_path / "PolypPVT.pth").unlink()
    with pytest.raises(UserError, match=f"{digests[1]}, and .* notes {digests[0]}"):
        released.get_polyp_pvt(tmp_path, str(second))
    assert names(tmp_path) == ["downloads.json"]
    (tmp_path / "PolypPVT.pth").write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=digests[0]):
        released.is_there(tmp_path)


def test_a_file_in_place_that_does_not_fit_is_named_and_kept(tmp_path):
    (tmp_path / "PolypPVT.pth").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"PolypPVT.pth holds Python objects .*move it away"):
        released.get_polyp_pvt(tmp_path, "")
    assert (tmp_path / "PolypPVT.pth").read_bytes() == b"mine"


LISTING = """<html><head><title>pvt</title></head><body>
<a href="https://drive.google.com/file/d/{id}/view">{name}</a></body></html>"""


def test_the_authors_drive_folder_is_listed_and_its_file_fetched(
    web, tmp_path, released_file, monkeypatch
):
    """gdown reads a listing that we wrote after Drive's; Google's own pages are out of reach here."""
    web.stand_in_for(monkeypatch, "drive.google.com")
    body = released_file("teacher", 1).read_bytes()
    page = LISTING.format(id=FILE_ID, name="PolypPVT.pth")
    web.files["/embeddedfolderview"] = File(steps=[("page", page)])
    served = {"Content-Disposition": 'attachment; filename="PolypPVT.pth"'}
    web.files["/uc"] = File(body, steps=[("cut", 1_000_000)], headers=served)
    released.get_polyp_pvt(tmp_path, "")
    assert (tmp_path / "PolypPVT.pth").read_bytes() == body
    assert f"file/d/{FILE_ID}/view" in (tmp_path / "downloads.json").read_text()


@pytest.mark.parametrize(
    "file",
    [File(steps=[("page", LISTING.format(id=FILE_ID, name="other.pth"))]), File(steps=[404]), None],
)
def test_a_folder_that_cannot_be_listed_ends_with_what_to_do_by_hand(
    web, tmp_path, monkeypatch, file
):
    web.stand_in_for(monkeypatch, "drive.google.com")
    web.files["/embeddedfolderview"] = file
    if file is None:
        web.close()
    hint = f"folders/{released.DRIVE_FOLDER} in a browser .*get polyp_pvt --from FILE"
    with pytest.raises(UserError, match=f"could not be listed .*{hint}"):
        released.get_polyp_pvt(tmp_path, "")
    assert names(tmp_path) == []


def test_an_address_is_taken_as_well(web, tmp_path, released_file):
    web.files["/w"] = File(released_file("teacher", 1).read_bytes(), steps=[("cut", 1_000_000)])
    released.get_polyp_pvt(tmp_path, web.address + "/w")
    assert released.is_there(tmp_path) and web.ranges_of("/w")[-1] is not None


def test_names_and_options_that_do_not_go_together_are_told(monkeypatch, capsys):
    assert kdas(monkeypatch, "weights", "get", "resnet") == 2
    assert "choose from polyp_pvt, imagenet" in capsys.readouterr().err
    assert kdas(monkeypatch, "weights", "get", "imagenet", "--from", "x") == 2
    assert "--from is for polyp_pvt alone" in capsys.readouterr().err


# --- backbones --------------------------------------------------------------------------------------------------------


def test_imagenet_weights_come_from_the_hub_once_and_then_from_its_cache(hub, monkeypatch):
    state = timm.create_model("pvt_v2_b0", pretrained=False).state_dict()
    path = "/timm/pvt_v2_b0.in1k/resolve/main/model.safetensors"
    hub.files[path] = File(save(state), headers={"X-Repo-Commit": "0" * 40})
    (line,) = released.get_imagenet()
    assert hub_file("pvt_v2_b0") in line and str(constants.HF_HUB_CACHE) in line
    hub.close()  # no network from here on
    net = build("student", pretrained=True)
    assert torch.equal(net.backbone.body.patch_embed.proj.weight, state["patch_embed.proj.weight"])
    assert torch.equal(net.backbone.body.stages_3.norm.weight, state["stages.3.norm.weight"])


def test_without_a_network_imagenet_weights_end_at_once_with_what_to_do_by_hand(
    hub, tmp_path, monkeypatch, capsys
):
    hub.close()
    assert kdas(monkeypatch, "weights", "get", "imagenet", "--yes") == 2
    said = capsys.readouterr().err
    assert "not reachable" in said and 'run "kdas weights get imagenet"' in said
    assert (
        f"copy the folder {tmp_path / 'hub' / 'models--timm--pvt_v2_b0.in1k'} from a machine"
        in said
    )


def test_a_hub_that_does_not_have_the_file_is_told(hub):
    path = "/timm/pvt_v2_b0.in1k/resolve/main/model.safetensors"
    hub.files[path] = File(steps=[404] * 9, headers={"X-Error-Code": "EntryNotFound"})
    with pytest.raises(UserError, match=r"pvt_v2_b0 could not be fetched \(404"):
        released.get_imagenet()
