"""All prompt methods with all distillers: shapes, gradients, persistence, bounds."""

import pytest
import torch
from toys import DISTILLERS, MAPPABLE, METHODS, N_CLASSES, TASKS, batch, learner, pair, possible

from cdl.data.batches import Batch
from cdl.methods import PROMPTS
from cdl.methods.base import PromptContext, PromptMethod
from cdl.training.loop import train_task

COMBINATIONS = [(m, d) for m in METHODS for d in DISTILLERS if possible(m, d)]
READ_BY_ALL = ("none", "kd_prompt", "cdl_prompt")  # what prediction meets too, with every method
COVERING = [(m, d) for m, d in COMBINATIONS if d in READ_BY_ALL or m in ("coda_prompt", "apt")]
TRAINING = {"epochs": 2, "lr": 0.01, "betas": (0.9, 0.999), "schedule": "cosine"}


def learn(student, teacher, query, task=0, **overrides):
    def batches(epoch):
        for seed in (epoch, 9):
            yield Batch(*batch(task=task, seed=seed), epoch, torch.arange(5))

    def teacher_output(made, q):
        return teacher(made.views, q, task, TASKS[task], student.compared_blocks)

    return train_task(
        student,
        batches,
        query=lambda made: query(made.views),
        teacher=teacher_output if teacher else None,
        task=task,
        classes=TASKS[task],
        **(TRAINING | overrides),
    )


def step(student, teacher, images, labels, task=0):
    query = student.backbone.query(images)
    keep = student.compared_blocks
    teacher_output = teacher(images, query, task, TASKS[task], keep)
    output = student(images, query, task, teacher_output.query, keep)
    return output, student.losses(output, teacher_output, labels, TASKS[task])


@pytest.mark.parametrize(("method", "distiller"), COMBINATIONS)
def test_shapes_and_gradients(toy_backbone, method, distiller):
    student, teacher = pair(toy_backbone, method, distiller)
    student.train()
    images, labels = batch()
    output, losses = step(student, teacher, images, labels)
    assert output.logits.shape == (5, N_CLASSES)
    assert student.predict(output, 4).shape == (5, 4)
    assert all(loss.shape == () for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in student.named_parameters():
        assert parameter.requires_grad != name.startswith(
            ("backbone.", "distiller.teacher_prompts.", "head.norm.", "distiller.kd_head.norm.")
        ), name
        if not parameter.requires_grad:
            assert parameter.grad is None, name
    learnt = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {name.split(".")[0] for name in learnt}
    assert "head" in parts
    assert ("prompts" in parts) == (method != "head_only")
    owns = bool(list(p for p in student.distiller.parameters() if p.requires_grad))
    assert ("distiller" in parts) == owns
    assert all(p.grad is None for p in teacher.learner.parameters())


@pytest.mark.parametrize(("method", "distiller"), COVERING)
def test_two_tasks_are_learnt_and_saved(toy_backbone, method, distiller):
    student, teacher = pair(toy_backbone, method, distiller)
    before = {k: v.clone() for k, v in student.state().items()}
    history = learn(student, teacher, student.backbone.query)
    student.end_task(0)
    assert len(history) == 4
    assert history.notna().all(axis=None)
    student.start_task(1, 0, 0)
    teacher.learner.start_task(1, 0, 1)
    student.distiller.read_teacher(teacher.learner.prompts.state_dict())
    learn(student, teacher, student.backbone.query, task=1)
    student.end_task(1)
    assert any(not torch.equal(before[k], v) for k, v in student.state().items())
    twin, _ = pair(toy_backbone, method, distiller)
    twin.load_state(student.state())
    images, _ = batch()
    query = student.backbone.query(images)
    results = [m.eval()(images, query, 1, query).logits for m in (student, twin)]
    assert torch.equal(*results)


@pytest.mark.parametrize("distiller", ["kd", "dkd"])
def test_alpha_zero_is_none_bit_by_bit(toy_backbone, distiller):
    states = []
    for name, options in (("none", {}), (distiller, {"alpha": 0.0})):
        student, teacher = pair(toy_backbone, "coda_prompt", name, options)
        learn(student, None if name == "none" else teacher, student.backbone.query)
        states.append(student.state())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_past_coda_components_are_constant(toy_backbone):
    student = learner(toy_backbone(), "coda_prompt")
    student.train().start_task(1, 0, 0)
    before = student.prompts.pool.prompt.detach().clone()
    learn(student, None, student.backbone.query, task=1)
    pool = student.prompts.pool
    for rows in (pool.key, pool.attention, pool.prompt):
        assert not rows.grad[:, : pool.per_task].any()
        assert rows.grad[:, pool.per_task : 2 * pool.per_task].any()
    assert torch.equal(pool.prompt[:, : pool.per_task], before[:, : pool.per_task])


@pytest.mark.parametrize("growth", ["exact", "gram_schmidt"])
def test_new_coda_components_are_orthonormal_to_untrained_ones(toy_backbone, growth):
    student = learner(toy_backbone(), "coda_prompt")
    pool = student.prompts.pool
    pool.growth = growth
    for task in range(2):
        student.start_task(task, 0, 0)
    for rows in (pool.key, pool.attention, pool.prompt):
        flat = rows.detach().flatten(2)[:, : 2 * pool.per_task]
        gram = flat @ flat.mT
        torch.testing.assert_close(
            gram, torch.eye(gram.shape[1]).expand_as(gram), atol=1e-5, rtol=0
        )


def test_exact_growth_is_orthogonal_to_trained_rows_too(toy_backbone):
    student = learner(toy_backbone(), "coda_prompt")
    pool = student.prompts.pool
    with torch.no_grad():
        pool.key[:, : pool.per_task] += 0.3 * torch.randn(
            pool.key[:, : pool.per_task].shape, generator=torch.Generator().manual_seed(0)
        )
    student.start_task(1, 0, 0)
    old, new = pool.key.detach()[:, : pool.per_task], pool.key.detach()[:, pool.per_task :]
    torch.testing.assert_close(
        old @ new.mT, torch.zeros(len(old), pool.per_task, pool.per_task), atol=1e-5, rtol=0
    )


def test_kd_prompts_persist_and_move_across_tasks(toy_backbone):
    student, teacher = pair(toy_backbone, "coda_prompt", "kd_prompt")
    learn(student, teacher, student.backbone.query)
    after_first = student.distiller.kd_prompts.detach().clone()
    student.end_task(0)
    student.start_task(1, 0, 0)
    teacher.learner.start_task(1, 0, 1)
    assert torch.equal(student.distiller.kd_prompts, after_first)
    learn(student, teacher, student.backbone.query, task=1)
    assert (student.distiller.kd_prompts != after_first).any(dim=-1).all()


def test_a_kd_token_may_start_at_zero_and_changes_no_other_draw(toy_backbone):
    tokens, heads = {}, {}
    for start in ("uniform", "zeros"):
        student, _ = pair(toy_backbone, "l2p", "kd_token", {"start": start})
        tokens[start] = student.distiller.kd_token
        heads[start] = student.distiller.kd_head.linear.weight
    assert not tokens["zeros"].any()
    assert tokens["uniform"].all()
    assert torch.equal(heads["zeros"], heads["uniform"])


def test_kd_prompt_with_one_layer_is_kd_token(toy_backbone):
    states = []
    for name, options in (("kd_token", {}), ("kd_prompt", {"kd_layers": 1})):
        student, teacher = pair(toy_backbone, "l2p", name, options)
        learn(student, teacher, student.backbone.query)
        states.append(student.state())
    assert states[1].pop("distiller.kd_prompts").numel() == 0
    assert all(torch.equal(states[0][k], v) for k, v in states[1].items())


def test_kd_head_off_distils_into_the_class_head(toy_backbone):
    student, teacher = pair(toy_backbone, "l2p", "kd_prompt", {"kd_head": False})
    output, losses = step(student.train(), teacher, *batch())
    losses["soft"].backward()
    assert student.head.linear.weight.grad.any()
    assert torch.equal(student.predict(output, N_CLASSES), output.logits)


@pytest.mark.parametrize("mapping", ["attention", "self_attention", "linear"])
@pytest.mark.parametrize("method", MAPPABLE)
def test_mappings_use_the_teachers_prompts(toy_backbone, method, mapping):
    student, teacher = pair(toy_backbone, method, "cdl_prompt", {"mapping": mapping})
    images, labels = batch()
    output, losses = step(student.train(), teacher, images, labels)
    sum(losses.values()).backward()
    assert any(p.grad is not None and p.grad.any() for p in student.distiller.mapping.parameters())
    with torch.no_grad():
        for parameter in student.distiller.teacher_prompts.parameters():
            parameter.mul_(-3).add_(0.5)
    changed, _ = step(student, teacher, images, labels)
    assert not torch.allclose(output.logits, changed.logits)


@pytest.mark.parametrize(
    ("method", "distiller"),
    [c for c in COMBINATIONS if c[1] in READ_BY_ALL],
)
def test_prediction_does_not_depend_on_the_batch(toy_backbone, method, distiller):
    student, _ = pair(toy_backbone, method, distiller)
    student.end_task(0)
    student.eval()
    images, _ = batch(n=9)

    def predict(rows):
        query = student.backbone.query(images[rows])
        with torch.no_grad():
            return student.predict(student(images[rows], query, 0, query), 4)

    whole = predict(torch.arange(9))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    parts = torch.cat([predict(rows) for rows in order.split(2)])
    torch.testing.assert_close(whole[order], parts, atol=1e-5, rtol=1e-5)


def test_apt_merges(toy_backbone):
    student = learner(toy_backbone(), "apt")
    apt = student.prompts
    first = apt.prompt_tokens.detach().clone()
    assert not apt.merged.any()
    student.end_task(0)
    assert torch.equal(apt.merged, first)
    with torch.no_grad():
        apt.prompt_tokens.add_(1)
    student.end_task(1)
    torch.testing.assert_close(apt.merged, first + (1 - apt.ema))
    apt.undo_merge()
    assert torch.equal(apt.merged, first)


def test_dual_prompt_chooses_among_learnt_keys_only(toy_backbone):
    student = learner(toy_backbone(), "dual_prompt").eval()
    dual = student.prompts
    query = torch.randn(4, 12)
    with torch.no_grad():
        dual.key[:, 2] = query[0]  # the closest key belongs to a later task
    chosen = {}
    for candidates in ("learned", "all"):
        dual.candidates = candidates
        chosen[candidates] = dual(query, 1).prefixes[2][0][0]
    assert torch.equal(chosen["all"], dual.prompt[0, 2, :2])
    assert any(torch.equal(chosen["learned"], dual.prompt[0, task, :2]) for task in range(2))


@pytest.mark.parametrize("method", [name for name in METHODS if PROMPTS[name].chooses])
def test_the_choice_of_a_method_gives_the_prompts_that_it_uses(toy_backbone, method):
    prompts = learner(toy_backbone(), method).eval().prompts
    pool = prompts.pool if method == "coda_prompt" else prompts
    query = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        choice = prompts.choice(query, 0)
        prefixes = prompts(query, 0).prefixes
    assert choice.weights.shape[:2] == (len(choice.layers), 5)
    if method != "coda_prompt":  # those that select use a prompt or do not
        assert {*choice.weights.unique().tolist()} == {0.0, 1.0}
    expected = torch.einsum("ybm,ymld->ybld", choice.weights, pool.prompt)
    for i, layer in enumerate(choice.layers):
        for half, used in zip(expected[i].chunk(2, dim=1), prefixes[layer], strict=True):
            together = used.unflatten(1, (-1, half.shape[1])).sum(1)  # of all selected prompts
            torch.testing.assert_close(together, half)


def test_only_methods_that_read_a_query_choose():
    for name, facts in PROMPTS.items():
        overrides = facts.load().choice is not PromptMethod.choice
        assert overrides == facts.chooses, name
        assert facts.needs_query or not facts.chooses


def test_auxiliary_weight_multiplies_auxiliary_losses(toy_backbone):
    student, teacher = pair(toy_backbone, "l2p", "fitnets")
    student.train()
    _, once = step(student, teacher, *batch())
    student.auxiliary_weight = 3.0
    _, thrice = step(student, teacher, *batch())
    for name, loss in once.items():
        assert loss > 0
        factor = 3 if name in ("prompt", "feature") else 1
        torch.testing.assert_close(thrice[name], factor * loss)


@pytest.mark.parametrize("method", ["l2p", "dual_prompt"])
def test_prompt_losses_are_the_mean_or_the_sum_over_the_batch(method):
    mean, total = (
        PROMPTS[method]
        .load()(
            PromptContext(12, 6, 12, 2, torch.Generator().manual_seed(0)),
            prompt_loss_reduction=reduction,
            **METHODS[method],
        )
        .train()(torch.ones(5, 12), 0)
        .losses
        for reduction in ("mean", "sum")
    )
    assert mean
    for layer, loss in mean.items():
        torch.testing.assert_close(total[layer], 5 * loss)
