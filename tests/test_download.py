"""`kdas data get`: from archives on a local server to a checked data set in its place."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from hashlib import sha256

import pytest
from conftest import kdas
from hazards import File

from kdas_book.data import download
from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS, index_pairs


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


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
    web.files["/train.zip"] = File(
        archive_of(polyps / "TrainDataset", "TrainDataset", singular=True)
    )
    web.files["/test.zip"] = File(archive_of(polyps / "TestDataset", "TestDataset"))
    tests = dict.fromkeys(FULL_COUNTS, 3)
    manifest = tmp_path / "mirrors.yaml"
    entries = {
        "train": {"addresses": [f"{web.address}/train.zip"], "counts": {"": 10}},
        "test": {"addresses": [f"{web.address}/test.zip"], "counts": tests},
    }
    manifest.write_text(json.dumps(entries))  # JSON is YAML
    return manifest


def test_the_command_brings_both_sets_into_the_layout_and_then_leaves_them(
    web, sets, polyps, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "data"
    command = ("data", "get", "--manifest", sets, "--out", out)
    assert kdas(monkeypatch, *command, "--yes") == 0
    said = capsys.readouterr().out
    assert "research and education" in said and said.index("research") < said.index("SHA-256")
    assert index_pairs(out / "TrainDataset").names == index_pairs(polyps / "TrainDataset").names
    for name in FULL_COUNTS:
        assert len(index_pairs(out / "TestDataset" / name)) == 3
    for pair in index_pairs(out / "TrainDataset"):
        assert (
            pair.image.read_bytes()
            == (polyps / "TrainDataset" / "images" / pair.image.name).read_bytes()
        )
    note = json.loads((out / "downloads.json").read_text())["TrainDataset.zip"]
    body = web.files["/train.zip"].body
    assert note["sha256"] == sha256(body).hexdigest() and note["bytes"] == len(body)
    assert note["address"] == f"{web.address}/train.zip" and note["date"].startswith("20")
    archives = {"TrainDataset.zip", "TestDataset.zip"}
    assert {p.name for p in (out / "downloads").iterdir()} == archives

    asked = len(web.asked + web.looked)
    assert kdas(monkeypatch, *command) == 0, "nothing is missing, so nobody is asked"
    said = capsys.readouterr().out
    assert said.count("complete already") == 2 and "terms" not in said
    assert len(web.asked + web.looked) == asked


@pytest.mark.parametrize(
    "steps, reason",
    [
        ([("cut", 100)] * 9, "broke off or stood still"),
        ([("stall", 100)] * 9, "broke off or stood still"),
        ([("page", "<html>Sign in</html>")] * 9, "a web page came instead"),
        ([403] * 9, "answered 403 Forbidden"),
        ([404] * 9, "answered 404 Not Found"),
        ([500] * 9, "answered 500 Internal Server Error"),
        (None, "not reachable"),
    ],
)
def test_a_failed_download_is_one_sentence_with_the_way_by_hand_and_leaves_nothing_in_place(
    web, sets, tmp_path, monkeypatch, capsys, steps, reason
):
    out = tmp_path / "data"
    if steps:
        web.files["/train.zip"].steps = steps
    else:
        web.close()
    command = ("data", "get", "train", "--yes", "--manifest", sets, "--out", out)
    assert kdas(monkeypatch, *command) == 2
    said = capsys.readouterr().err
    assert reason in said and f"save the file as {out / 'downloads' / 'TrainDataset.zip'}" in said
    assert "Traceback" not in said and not (out / "TrainDataset").exists()
    assert all(name.endswith(".part") for name in os.listdir(out / "downloads"))


def test_nothing_is_fetched_before_the_terms_are_agreed_to(
    web, sets, tmp_path, monkeypatch, capsys
):
    command = ("data", "get", "train", "--manifest", sets, "--out", tmp_path / "data")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal
    assert kdas(monkeypatch, *command) == 2
    shown = capsys.readouterr()
    assert "may be used commercially" in shown.out and "add --yes" in shown.err
    assert not web.asked and not web.looked
    answers = iter(["n\n", "y\n"])
    for code in (2, 0):
        terminal = io.StringIO(next(answers))
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", terminal)
        assert kdas(monkeypatch, *command) == code
        assert bool(web.asked) is bool(web.looked) is (code == 0)


def source_of(sets, name="train"):
    return download.choose([name], sets)[0]


def test_a_partial_set_is_named_and_not_touched(web, sets, polyps, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(polyps / "TestDataset", out / "TestDataset")
    assert download.is_complete(source_of(sets, "test"), out)
    shutil.rmtree(out / "TestDataset" / "Kvasir")
    before = files_in(out)
    with pytest.raises(
        UserError,
        match=r"TestDataset is there but not complete \(Kvasir is missing\).*move it away",
    ):
        download.get(source_of(sets, "test"), out)
    pair = index_pairs(out / "TestDataset" / "CVC-300")[0]
    os.remove(pair.mask)
    with pytest.raises(UserError, match=r"CVC-300.* has no mask"):
        download.get(source_of(sets, "test"), out)
    assert len(files_in(out)) == len(before) - 1 and not web.asked and not web.looked


def test_an_empty_folder_is_no_data(sets, tmp_path):
    (tmp_path / "data" / "TrainDataset").mkdir(parents=True)
    download.get(source_of(sets), tmp_path / "data")
    assert len(index_pairs(tmp_path / "data" / "TrainDataset")) == 10


def test_another_number_of_pairs_is_told_and_the_archive_is_kept(sets, tmp_path):
    source = replace(source_of(sets), counts={"": 1450})
    with pytest.raises(
        UserError, match=r"TrainDataset.zip is not what it should be \(10 pairs instead of 1450\)"
    ):
        download.get(source, tmp_path / "data")
    assert files_in(tmp_path / "data") == ["downloads/TrainDataset.zip"]


def test_pairs_that_do_not_fit_are_told_by_their_names_in_the_archive(web, polyps, sets, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(polyps / "TrainDataset", broken)
    os.remove(index_pairs(broken)[3].mask)
    web.files["/train.zip"] = File(archive_of(broken, "TrainDataset"))
    with pytest.raises(
        UserError, match=r"TrainDataset.zip is not what it should be \(images/\S+ has no mask"
    ):
        download.get(source_of(sets), tmp_path / "data")


def test_an_archive_saved_by_hand_is_used_without_a_network(web, sets, tmp_path):
    out = tmp_path / "data"
    (out / "downloads").mkdir(parents=True)
    (out / "downloads" / "TrainDataset.zip").write_bytes(web.files["/train.zip"].body)
    web.close()
    assert "10 pairs" in download.get(source_of(sets), out)
    with pytest.raises(UserError) as error:
        download.get(source_of(sets, "test"), out)
    for step in (
        f"open {web.address}/test.zip in a browser",
        f"save the file as {out / 'downloads' / 'TestDataset.zip'}",
    ):
        assert step in str(error.value)


def test_an_archive_that_changed_is_refused_with_both_digests(web, sets, tmp_path):
    out, source = tmp_path / "data", source_of(sets)
    download.get(source, out)
    first = sha256(web.files["/train.zip"].body).hexdigest()
    shutil.rmtree(out / "TrainDataset")
    (out / "downloads" / "TrainDataset.zip").unlink()
    web.files["/train.zip"].body += b"\0"  # still a sound archive, but another
    second = sha256(web.files["/train.zip"].body).hexdigest()
    with pytest.raises(UserError, match=f"{second}, and .*downloads.json notes {first}"):
        download.get(source, out)
    assert not (out / "TrainDataset").exists()
    with pytest.raises(UserError, match=f"{second}, and the manifest says {'0' * 64}"):
        download.get(replace(source, sha256="0" * 64), out)


def test_a_ledger_that_cannot_be_read_is_named(sets, tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    (out / "downloads.json").write_text("[1")
    with pytest.raises(UserError, match="downloads.json cannot be read"):
        download.get(source_of(sets), out)


def test_two_at_once_do_not_write_into_each_other(sets, tmp_path):
    from filelock import FileLock

    folder = tmp_path / "data" / "downloads"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="Another .* at work"):
        download.get(source_of(sets), tmp_path / "data")


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_killed_goes_on_where_it_was(web, sets, tmp_path, stop):
    out = tmp_path / "data"
    stream = io.BytesIO(web.files["/train.zip"].body)
    with zipfile.ZipFile(stream, "a") as zipped:
        zipped.writestr("TrainDataset/notes.bin", os.urandom(3_000_000))
    web.files["/train.zip"].body = stream.getvalue()
    web.files["/train.zip"].steps = [("stall", 2_000_000)]
    command = [
        sys.executable,
        "-m",
        "kdas_book.cli",
        "data",
        "get",
        "train",
        "--yes",
        "--manifest",
        sets,
        "--out",
        out,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120  # a busy machine needs long to load its packages
    while not any(p.stat().st_size > 1_000_000 for p in out.rglob("*.part")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(stop)
    assert process.wait(30) != 0
    assert (
        not (out / "TrainDataset").exists()
        and not (out / "downloads" / "TrainDataset.zip").exists()
    )
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert len(index_pairs(out / "TrainDataset")) == 10
    assert int(web.ranges_of("/train.zip")[-1][6:-1]) > 1_000_000


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
    assert (
        sum(train.counts.values()) == 1450
        and sum(test.counts.values()) == 60 + 62 + 100 + 380 + 196
    )
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
