"""The objectives: released values and gradients, and what must hold of every term."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN

from kdas_core import UserError
from kdas_core.attention import attention_distribution, attention_weights, self_attention
from kdas_core.losses import (
    OBJECTIVES,
    ON_FEATURES,
    Output,
    attention_supervision,
    attention_transfer,
    bernoulli_distillation,
    channel_wise_distillation,
    feature_matching,
    objective,
    pairwise_affinity,
    region_affinity,
    standardised_distillation,
    structure_loss,
    symmetric_guiding,
)
from kdas_core.losses.objectives import CHOICES
from kdas_core.models import build, freeze, teacher_logits
from kdas_core.recipe import preset

ON_MAPS = [name for name in OBJECTIVES if name not in ON_FEATURES]
CASES = json.loads((GOLDEN / "released_losses.json").read_text())
DISTILLING = [name for name in ON_MAPS if name != "supervised"]


def golden_inputs(case):
    """The inputs of a golden case, drawn in the order that its description gives."""
    r, b, s = np.random.default_rng(case["seed"]), case["batch"], case["size"]
    p1, p2, t1, t2 = (
        torch.from_numpy((r.standard_normal((b, 1, s, s)) * scale).astype(np.float32))
        for scale in (2, 2, 3, 3)
    )
    y, x = np.mgrid[:s, :s]
    masks = []
    for _ in range(b):
        cy, cx, radius = r.uniform(0.3, 0.7) * s, r.uniform(0.3, 0.7) * s, r.uniform(0.1, 0.3) * s
        masks.append((y - cy) ** 2 + (x - cx) ** 2 < radius**2)
    mask = torch.from_numpy(np.stack(masks)[:, None].astype(np.float32))
    if case["soft_masks"]:
        for side in (s // 2, s):
            mask = F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=True)
    assert mask.mean().item() == pytest.approx(case["mask_mean"], abs=1e-6)
    return (p1.requires_grad_(), p2.requires_grad_()), (t1, t2), mask


def random_maps(batch=2, size=32, scale=3.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    student = tuple(
        (scale * torch.randn(batch, 1, size, size, generator=g)).requires_grad_() for _ in range(2)
    )
    teacher = tuple(
        (scale * torch.randn(batch, 1, size, size, generator=g)).requires_grad_() for _ in range(2)
    )
    mask = (torch.rand(batch, 1, size, size, generator=g) > 0.7).float()
    return student, teacher, mask


@pytest.mark.parametrize("case", CASES, ids=[f"seed{c['seed']}" for c in CASES])
class TestReleased:
    def objective(self, case, **hyperparameters):
        return objective(
            "released", temperature=case["temperature"], alpha=case["alpha"], **hyperparameters
        )

    def test_values_equal_the_released_program(self, case):
        terms = self.objective(case)(*golden_inputs(case))
        assert terms["structure_1"].item() == pytest.approx(case["structure_p1"], rel=1e-5)
        assert terms["structure_2"].item() == pytest.approx(case["structure_p2"], rel=1e-5)
        assert terms["symmetric"].item() == pytest.approx(case["symmetric_mse"], rel=1e-5)
        kl = (terms["attention_1_inert"] + terms["attention_2_inert"]).item() / case[
            "temperature"
        ] ** 2
        assert kl == pytest.approx(case["released_kl_positive_targets_only"], abs=1e-5)
        assert terms["total"].item() == pytest.approx(case["total_positive_targets_only"], rel=1e-5)

    def test_gradients_equal_the_released_program(self, case):
        student, teacher, mask = golden_inputs(case)
        grads = torch.autograd.grad(self.objective(case)(student, teacher, mask)["total"], student)
        for k, grad in enumerate(grads, start=1):
            assert grad.norm().item() == pytest.approx(case[f"grad_p{k}_norm"], rel=1e-4)
            sample = grad.flatten()[:: grad.numel() // 16][:16].numpy()
            np.testing.assert_allclose(sample, case[f"grad_p{k}_sample"], rtol=1e-3, atol=1e-9)

    def test_on_current_torch_the_value_is_nan_and_the_gradients_are_the_same(self, case):
        student, teacher, mask = golden_inputs(case)
        old = torch.autograd.grad(self.objective(case)(student, teacher, mask)["total"], student)
        terms = self.objective(case, positive_targets_only=False)(student, teacher, mask)
        assert math.isnan(terms["attention_1_inert"]) and math.isnan(terms["total"])
        new = torch.autograd.grad(terms["total"], student)
        assert all(torch.equal(a, b) for a, b in zip(old, new))

    def test_attention_of_the_teacher_is_the_released_one(self, case):
        attended = self_attention(golden_inputs(case)[1][0]) / case["temperature"]
        assert attended.mean().item() == pytest.approx(case["attention_t1_mean"], abs=1e-5)
        assert attended.std().item() == pytest.approx(case["attention_t1_std"], rel=1e-4)


def test_released_attention_term_has_no_gradient():
    student, teacher, mask = random_maps()
    terms = objective("released")(student, teacher, mask)
    for k in (1, 2):
        (grad,) = torch.autograd.grad(
            terms[f"attention_{k}_inert"], student[k - 1], retain_graph=True
        )
        assert torch.count_nonzero(grad) == 0
        # and the repaired term has one, on the same maps
        repaired = attention_supervision(student[k - 1], teacher[k - 1])
        assert torch.autograd.grad(repaired, student[k - 1])[0].norm() > 1e-4


def test_released_objective_is_in_effect_supervision_plus_guiding_of_the_first_map():
    student, teacher, mask = random_maps()
    grads = torch.autograd.grad(
        objective("released", alpha=0.3)(student, teacher, mask)["total"], student
    )
    effect = (1 - 0.3) * (structure_loss(student[0], mask) + structure_loss(student[1], mask))
    effect = effect + 0.3 * symmetric_guiding(student[0], teacher[0])
    # To the last bit, as chapter 8 compares: gradients must add up in the same order, too.
    for ours, theirs in zip(grads, torch.autograd.grad(effect, student)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in DISTILLING if n != "released"])
def test_every_term_teaches_the_student_and_never_the_teacher(name):
    student, teacher, mask = random_maps()
    terms = objective(name)(student, teacher, mask)
    for term, value in terms.items():
        of_student = torch.autograd.grad(value, student, retain_graph=True, allow_unused=True)
        of_teacher = torch.autograd.grad(value, teacher, retain_graph=True, allow_unused=True)
        assert sum(g.norm().item() for g in of_student if g is not None) > 1e-6, term
        assert of_teacher == (None, None), term


@pytest.mark.parametrize("name", ON_MAPS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_finite_in_float32_under_autocast_for_one_image_and_for_extreme_logits(name, batch, scale):
    student, teacher, mask = random_maps(batch, scale=1.0)
    student = tuple(
        (s.detach().sign() * scale).to(torch.bfloat16).requires_grad_() for s in student
    )
    teacher = tuple((t.detach().sign() * scale).to(torch.bfloat16) for t in teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(name)(student, teacher, mask)
    for term, value in terms.items():
        assert value.dtype == torch.float32, term
        assert torch.isfinite(value), term
    for grad in torch.autograd.grad(terms["total"], student):
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", [n for n in DISTILLING if n != "released"])
def test_distillation_is_lowest_when_student_and_teacher_agree(name):
    student, teacher, mask = random_maps()
    at_teacher = objective(name)(teacher, teacher, mask)
    own_terms = [t for t in at_teacher if not t.startswith("structure") and t != "total"]
    assert own_terms
    for step in (0.01, 0.1, 1.0):
        mixed = tuple(
            t.detach() + step * (s.detach() - t.detach()) for s, t in zip(student, teacher)
        )
        elsewhere = objective(name)(mixed, teacher, mask)
        for term in own_terms:
            assert at_teacher[term].item() == pytest.approx(0, abs=1e-5)
            assert elsewhere[term] > at_teacher[term]


@pytest.mark.parametrize("name", ON_MAPS)
def test_a_better_student_has_a_lower_loss(name):
    """Good < bad: maps that point at the mask, against maps that point away; the teacher is right."""
    _, _, mask = random_maps()
    right, wrong = 6 * mask - 3, 3 - 6 * mask
    value = objective(name)
    assert (
        value((right, right), (right, right), mask)["total"]
        < value((wrong, wrong), (right, right), mask)["total"]
    )


@pytest.mark.parametrize("name", ON_MAPS)
def test_a_step_along_the_gradient_lowers_the_total(name):
    student, teacher, mask = random_maps()
    value = objective(name)
    before = value(student, teacher, mask)["total"]
    grads = torch.autograd.grad(before, student)
    norm = torch.sqrt(sum(g.square().sum() for g in grads))
    after = value(tuple(s - 0.1 * g / norm for s, g in zip(student, grads)), teacher, mask)["total"]
    assert after < before


def test_kdas_is_the_sum_that_the_table_states():
    student, teacher, mask = random_maps()
    terms = objective("kdas", alpha=0.2, attention_weight=3.0, guiding_weight=0.5, temperature=4.0)(
        student, teacher, mask
    )
    attention = [attention_supervision(s, t, 4.0) for s, t in zip(student, teacher)]
    a, b = self_attention(student[1]), self_attention(teacher[1])  # as the framework figure has it
    guiding = (a + a.transpose(1, 2) - b - b.transpose(1, 2)).square().mean()
    structure = sum(structure_loss(s, mask) for s in student)
    expected = 0.8 * structure + 0.2 * (3 * sum(attention) + 0.5 * guiding)
    torch.testing.assert_close(terms["total"], expected)
    assert set(terms) == {
        "structure_1",
        "structure_2",
        "attention_1",
        "attention_2",
        "symmetric",
        "total",
    }


def test_raw_guiding_is_the_earlier_objective():
    student, teacher, mask = random_maps()
    given = {"alpha": 0.2, "attention_weight": 3.0, "guiding_weight": 0.5}
    attended, raw = (
        objective("kdas", guide=guide, **given)(student, teacher, mask)
        for guide in ("attended", "raw")
    )
    assert raw["symmetric"] == symmetric_guiding(student[1], teacher[1])
    difference = 0.2 * 0.5 * (raw["symmetric"] - attended["symmetric"])
    torch.testing.assert_close(raw["total"] - attended["total"], difference)


def test_attended_and_raw_guiding_differ_by_how_sure_the_maps_are():
    """Of sure maps each row attends to itself alone, and A(P) is P; of unsure ones it is a mean of the rows."""
    rng = np.random.default_rng(0)
    unsure = [torch.from_numpy(rng.normal(0, sd, (4, 1, 96, 96))).float() for sd in (0.3, 0.5)]
    raw, attended = (
        symmetric_guiding(*unsure),
        symmetric_guiding(*(self_attention(p)[:, None] for p in unsure)),
    )
    assert 10 * attended < raw
    sure = [20 * p for p in unsure]
    raw, attended = (
        symmetric_guiding(*sure),
        symmetric_guiding(*(self_attention(p)[:, None] for p in sure)),
    )
    torch.testing.assert_close(raw, attended, rtol=0.05, atol=0)


@pytest.mark.parametrize("name, term", [("kdas", "attention"), ("channel_wise_kd", "channel")])
def test_the_mean_over_pixels_is_the_sum_divided_by_them(name, term):
    student, teacher, mask = random_maps(size=32)
    total, mean = (
        objective(name, reduction=reduction)(student, teacher, mask)
        for reduction in ("sum", "mean")
    )
    for k in (1, 2):
        torch.testing.assert_close(total[f"{term}_{k}"], 32**2 * mean[f"{term}_{k}"])


def test_attention_supervision_equals_the_divergence_written_out():
    student, teacher, _ = random_maps(size=8)
    tau = 3.0
    p, q = attention_distribution(student[0], tau), attention_distribution(teacher[0], tau)
    torch.testing.assert_close(q.sum((1, 2)), torch.ones(2))
    expected = tau**2 * (q * (q.log() - p.log())).sum((1, 2)).mean()
    torch.testing.assert_close(attention_supervision(student[0], teacher[0], tau), expected)


def test_attention_mixes_rows_and_stays_within_the_map():
    p = random_maps(size=16)[0][0].detach()
    weights = attention_weights(p)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 16))
    attended = self_attention(p)
    assert (attended.amax((1, 2)) <= p.amax((1, 2, 3)) + 1e-5).all()
    # rows that are all alike attend to each other evenly, and attention leaves them as they are
    same = torch.randn(1, 1, 1, 16).expand(1, 1, 16, 16)
    torch.testing.assert_close(attention_weights(same), torch.full((1, 16, 16), 1 / 16))
    torch.testing.assert_close(self_attention(same), same.squeeze(1))


def test_symmetric_guiding_sees_only_the_symmetric_part():
    student, teacher, _ = random_maps()
    s = student[0]
    antisymmetric = torch.randn_like(s)
    antisymmetric = antisymmetric - antisymmetric.transpose(2, 3)
    torch.testing.assert_close(
        symmetric_guiding(s + antisymmetric, teacher[0]), symmetric_guiding(s, teacher[0])
    )
    assert symmetric_guiding(s.transpose(2, 3), s) == 0
    with pytest.raises(ValueError, match="not square"):
        symmetric_guiding(torch.zeros(1, 1, 4, 6), torch.zeros(1, 1, 4, 6))


def test_weights_of_the_structure_loss_count_only_where_they_are_asked_for():
    logits = random_maps(size=64)[0][0]
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 20:40, 20:40] = 1
    plain = F.binary_cross_entropy_with_logits(logits, mask)
    iou = structure_loss(logits, mask) - plain
    assert 0 < iou < 1
    assert abs(structure_loss(logits, mask, weighted_bce=True) - iou - plain) > 1e-3


def test_logit_distillation_equals_the_sum_over_two_classes():
    student, teacher, _ = random_maps(size=8)
    s, t, tau = student[0], teacher[0], 2.0
    two = [
        torch.log_softmax(torch.cat([x / tau, torch.zeros_like(x)], dim=1), dim=1) for x in (s, t)
    ]
    expected = tau**2 * F.kl_div(two[0], two[1], log_target=True, reduction="none").sum(1).mean()
    torch.testing.assert_close(bernoulli_distillation(s, t, tau), expected)


def test_attention_supervision_is_channel_wise_distillation_of_the_attended_maps():
    student, teacher, _ = random_maps(size=16)
    attended = [self_attention(P[0])[:, None] for P in (student, teacher)]
    torch.testing.assert_close(
        channel_wise_distillation(*attended, temperature=3.0),
        attention_supervision(student[0], teacher[0], 3.0),
    )


def test_channel_wise_distillation_counts_every_channel_alike_and_forgets_constants():
    a, b = random_maps(size=8)[0], random_maps(size=8, seed=1)[0]
    of_each = [channel_wise_distillation(s, t) for s, t in zip(a, b)]
    together = channel_wise_distillation(torch.cat(a, dim=1), torch.cat(b, dim=1))
    torch.testing.assert_close(together, sum(of_each) / 2)
    torch.testing.assert_close(channel_wise_distillation(a[0] + 5, b[0]), of_each[0])
    assert abs(bernoulli_distillation(a[0] + 5, b[0]) - bernoulli_distillation(a[0], b[0])) > 0.1


def test_attention_transfer_is_two_minus_twice_the_cosine_and_forgets_sign_and_size():
    student, teacher, _ = random_maps(size=8)
    s, t = student[0], teacher[0]
    cosine = F.cosine_similarity(s.square().flatten(1), t.square().flatten(1), dim=1)
    torch.testing.assert_close(attention_transfer(s, t), (2 - 2 * cosine).mean())
    torch.testing.assert_close(attention_transfer(-4 * s, t), attention_transfer(s, t))
    assert attention_transfer(torch.cat([s, s], dim=1), t).item() == pytest.approx(
        attention_transfer(s, t).item()
    )
    apart = torch.zeros(2, 1, 1, 1, 4).float()
    apart[0, ..., 0], apart[1, ..., 3] = 5, -2
    assert attention_transfer(*apart).item() == pytest.approx(2)


@pytest.mark.parametrize(
    "loss", [attention_transfer, bernoulli_distillation, channel_wise_distillation]
)
def test_rivals_refuse_maps_of_two_sizes(loss):
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\) and teacher \(1, 1, 4, 8\)"):
        loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 8))


def test_weights_of_the_rivals_multiply_their_own_terms_only():
    student, teacher, mask = random_maps()
    for name, kind in (("channel_wise_kd", "channel"), ("attention_transfer", "transfer")):
        terms = objective(name, alpha=0.2, attention_weight=7.0)(student, teacher, mask)
        structure = terms["structure_1"] + terms["structure_2"]
        expected = 0.8 * structure + 0.2 * 7 * (terms[f"{kind}_1"] + terms[f"{kind}_2"])
        torch.testing.assert_close(terms["total"], expected)
    with pytest.raises(UserError, match="no hyperparameter temperature"):
        objective("attention_transfer", temperature=2.0)


def test_unknown_objective_hyperparameter_or_missing_teacher_are_told_in_a_sentence():
    with pytest.raises(UserError, match="kdass.*supervised, logit_kd"):
        objective("kdass")
    with pytest.raises(UserError, match="no hyperparameter tau"):
        objective("kdas", tau=3)
    with pytest.raises(UserError, match="no hyperparameter guiding_weight"):
        objective("attention_only", guiding_weight=1.0)
    student, _, mask = random_maps()
    with pytest.raises(UserError, match="none was given"):
        objective("kdas")(student, None, mask)


# --- rivals on features, and controls ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outputs():
    """What a student and a teacher say of the same images, with features, and a mask."""
    torch.manual_seed(0)
    student, teacher = build("student"), freeze(build("student"))
    images = torch.randn(3, 3, 64, 64)
    mask = torch.zeros(3, 1, 64, 64)
    mask[:, :, 16:40, 10:50] = 1
    return student, teacher, images, mask


def test_features_change_no_map_and_are_there_only_on_request(outputs):
    _, net, images, _ = outputs
    plain, (maps, features) = net(images), net(images, features=True)
    assert all(map(torch.equal, plain, maps))
    assert {name: tuple(f.shape[1:]) for name, f in features.items()} == {
        "stage1": (32, 16, 16),
        "stage2": (64, 8, 8),
        "stage3": (160, 4, 4),
        "stage4": (256, 2, 2),
        "fused": (32, 8, 8),
    }
    torch.testing.assert_close(
        maps[0], F.interpolate(net.head1(features["fused"]), scale_factor=8, mode="bilinear")
    )


@pytest.mark.parametrize("name", ON_FEATURES)
def test_a_rival_on_features_is_lowest_at_the_teacher_and_teaches_the_student_alone(name, outputs):
    student, teacher, images, mask = outputs
    loss_fn = objective(name, alpha=1.0)
    of_teacher = Output(*teacher_logits(teacher, images, features=True))
    terms = loss_fn(Output(*student(images, features=True)), of_teacher, mask)
    own = [term for term in terms if not term.startswith(("structure", "total"))]
    same = loss_fn(of_teacher, of_teacher, mask)
    assert own and all(abs(float(same[term])) < 1e-6 for term in own)
    assert all(terms[term] > 100 * abs(same[term]) for term in own)
    student.zero_grad()
    terms["total"].backward()
    reached = {name.split(".")[0] for name, p in student.named_parameters() if p.grad is not None}
    assert "backbone" in reached
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", ["mse", "standardised_kd"])
def test_a_rival_on_maps_is_lowest_at_the_teacher(name):
    student, teacher, mask = random_maps()
    loss_fn = objective(name, alpha=1.0)
    assert loss_fn(student, teacher, mask)["total"] > 0.01
    assert abs(float(loss_fn(teacher, teacher, mask)["total"])) < 1e-6


def test_the_rivals_equal_their_formulas_written_out():
    torch.manual_seed(3)
    s, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:5, 1:7] = 1
    torch.testing.assert_close(feature_matching(s, t), ((s - t) ** 2).mean())
    cosines = [
        torch.stack(
            [
                F.cosine_similarity(f[b].flatten(1).T[:, None], f[b].flatten(1).T[None], -1)
                for b in (0, 1)
            ]
        )
        for f in (s, t)
    ]
    torch.testing.assert_close(pairwise_affinity(s, t), ((cosines[0] - cosines[1]) ** 2).mean())
    inside = mask[0, 0].bool()
    contrasts = [
        F.cosine_similarity(f[:, :, inside].mean(-1), f[:, :, ~inside].mean(-1)) for f in (s, t)
    ]
    torch.testing.assert_close(
        region_affinity(s, t, mask), ((contrasts[0] - contrasts[1]) ** 2).mean()
    )
    a, b = s[:, :1], t[:, :1]
    z = [(p - p.mean((1, 2, 3), True)) / p.std((1, 2, 3), keepdim=True) for p in (a, b)]
    torch.testing.assert_close(standardised_distillation(a, b), bernoulli_distillation(*z))


@pytest.mark.parametrize("name", ON_FEATURES)
def test_a_rival_on_features_needs_them(name):
    student, teacher, mask = random_maps()
    with pytest.raises(UserError, match=f"{name}.* needs the networks' features"):
        objective(name)(student, teacher, mask)


def test_a_region_that_is_not_there_asks_for_nothing():
    s, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    assert region_affinity(s, t, torch.zeros(2, 1, 8, 8)) == 0
    assert region_affinity(s, t, torch.ones(2, 1, 8, 8)) == 0


def test_controls_replace_what_the_teacher_says():
    student, teacher, mask = random_maps()
    loss_fn = objective("logit_kd", alpha=1.0)
    oracle = 4 * (2 * mask - 1)
    expected = sum(bernoulli_distillation(s, oracle) for s in student)
    torch.testing.assert_close(loss_fn(student, teacher, mask, control="oracle")["total"], expected)
    blurred = loss_fn(student, teacher, mask, control="blurred")["total"]
    assert blurred < expected  # less sure, and so nearer to a student that knows nothing
    others = [t.roll(1, dims=0) for t in teacher]
    expected = sum(bernoulli_distillation(s, t) for s, t in zip(student, others))
    shuffled = loss_fn(student, teacher, mask, control="shuffled")["total"]
    torch.testing.assert_close(shuffled, expected)
    with pytest.raises(UserError, match="control is 'noise'; choose none or oracle"):
        preset("smoke", control="noise")


@pytest.mark.parametrize(
    "name, given",
    [
        ("kdas", {"guide": "attnded"}),
        ("kdas", {"reduction": "max"}),
        ("logit_kd", {"control": "no"}),
    ]
    + [(name, {"control": "oracle"}) for name in ON_FEATURES],
)
def test_a_word_that_is_no_choice_or_would_change_nothing_is_refused(name, given):
    student, teacher, mask = random_maps()
    (key,) = given
    with pytest.raises(UserError, match=f"{key} is .*; choose"):
        objective(name, **given)
    with pytest.raises(UserError, match=f"{key} is .*; choose"):
        objective(name)(student, teacher, mask, **given)


def test_recipe_and_objectives_have_one_list_of_words():
    for key, words in CHOICES.items():
        for word in words:
            assert getattr(preset("smoke", **{key: word}), key) == word
        with pytest.raises(UserError, match=f"choose {' or '.join(words)}"):
            preset("smoke", **{key: "another"})
