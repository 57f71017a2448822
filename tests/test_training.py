"""The loop and the invariants of DESIGN §4 that one process can break."""

import math

import numpy as np
import pytest
import torch
from tests.helpers.trainings import BN_TASK, ONE, TASKS, assert_bit_equal, assert_equal, digits, rows, run
from torch import Tensor, nn

from talweg import Layout, Recipe, Samples, Task, Training, UserError, Weights
from talweg.nn.models import mlp
from talweg.optimizers import LAMB, LARS, RULES, SGD, AdamW, Rule
from talweg.schedules import Constant, Cosine


@pytest.mark.parametrize(
    "rule", [SGD(lr=0.05), AdamW(lr=1e-3), LARS(lr=0.5), LAMB(lr=1e-2)], ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("name", TASKS)
def test_accumulation_never_changes_the_result(name: str, rule: Rule) -> None:
    """Invariant 1 and 2: also with a short last window (50 = 3·16 + 2, and 16 = 3·5 + 1)."""
    task = TASKS[name]()
    whole = run(task, optimizer=rule, clip=0.7)
    for micro in (1, 5):
        assert_equal(
            whole,
            run(task, Layout(device="cpu", threads=1, compile="off", micro_batch=micro), optimizer=rule, clip=0.7),
        )


@pytest.mark.parametrize(
    "samples",
    [
        Samples(mixup=0.4),
        Samples(cutmix=1.0, label_smoothing=0.1, augment=("crop", "rotate:15", "cutout:0.3")),
        Samples(order="class_spread", label_smoothing=0.1),
        Samples(order="class_balanced", augment=("flip", "noise:0.1")),
    ],
    ids=["mixup", "cutmix", "spread", "balanced"],
)
def test_how_samples_are_shown_never_depends_on_the_cut(samples: Samples) -> None:
    """Partners, masks, noise and soft targets are functions of (seed, epoch, sample)."""
    task = TASKS["conv"]()
    whole = run(task, samples=samples)
    assert whole[0] != run(task)[0]
    assert_equal(whole, run(task, Layout(device="cpu", threads=1, compile="off", micro_batch=5), samples=samples))


def mean(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


def per_item(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target, reduction="none")


def sum_and_count(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return per_item(output, target).sum(), torch.tensor(len(target))


def test_the_three_forms_of_a_loss_agree() -> None:
    x, y = rows()
    results = [
        run(
            Task(name="t", model=lambda: mlp(6, 4), train=(x, y), loss=loss),
            Layout(device="cpu", threads=1, compile="off", micro_batch=m),
        )
        for loss in ("cross_entropy", mean, per_item, sum_and_count)
        for m in (0, 3)
    ]
    for other in results[1:]:
        assert_equal(results[0], other)


def test_masked_loss_divides_by_the_true_count() -> None:
    """Items that a loss leaves out are in no denominator, whatever the cut into micro-batches."""

    def masked(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        kept = target != 3
        return (per_item(output, target) * kept).sum(), kept.sum()

    x, y = rows()
    task = Task(name="t", model=lambda: mlp(6, 4), train=(x, y), loss=masked)
    whole = run(task, samples=Samples(order="sequential"))
    assert_equal(
        whole,
        run(task, Layout(device="cpu", threads=1, compile="off", micro_batch=3), samples=Samples(order="sequential")),
    )
    kept = y[:16] != 3
    model = Training(task, Recipe(batch=16, precision="float64", weights=Weights(initialize="kaiming_normal")), ONE)
    prepared = model.built.normalizer(x[:16])
    by_hand = per_item(model.module(prepared), y[:16])[kept].mean().item()
    assert whole[0][0] == pytest.approx(by_hand, rel=1e-12)


class Pairs(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = rows()
        return x[index], y[index]


def test_where_the_data_lies_never_changes_the_result() -> None:
    x, y = rows()
    kinds = [(x, y), (x.numpy(), y.numpy()), torch.utils.data.TensorDataset(x, y), Pairs()]
    results = [
        run(
            Task(name="t", model=lambda: mlp(6, 4), train=data),
            Layout(device="cpu", threads=1, compile="off", workers=workers),
        )
        for data in kinds
        for workers in ((0, 2) if data is kinds[-1] else (0,))
    ]
    for other in results[1:]:
        assert_bit_equal(results[0], other)


def test_looking_on_leaves_no_trace() -> None:
    """Validation, measured choices and their passes change neither weights nor statistics nor noise."""
    settings = {"precision": "float32", "optimizer": SGD(lr=0.05), "samples": Samples(augment=("crop",))}
    plain = Task(name="bn", model=BN_TASK.model, train=BN_TASK.train)
    quiet = run(plain, ONE, 30, **settings)
    assert_bit_equal(quiet, run(BN_TASK, ONE, 30, **settings))
    assert_bit_equal(quiet, run(BN_TASK, Layout(device="cpu"), 30, **settings))  # threads and compile are measured


def test_global_random_state_has_no_influence() -> None:
    torch.manual_seed(1)
    first = run(BN_TASK, weights=Weights(initialize="model"))
    torch.manual_seed(2)
    torch.rand(100)
    assert_bit_equal(first, run(BN_TASK, weights=Weights(initialize="model")))


def dropout_net() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10)
    )


@pytest.mark.parametrize("name", RULES)
def test_going_on_from_a_state_is_exact(name: str) -> None:
    """Invariant 4: at any update, also inside an epoch; weights, history and best are bit-equal."""
    task = Task(name="t", model=dropout_net, train=digits(100), validation=digits(50), metrics=("accuracy",))
    recipe = Recipe(
        batch=16,
        epochs=3,
        clip=1.0,
        optimizer=RULES[name](lr=0.01),
        samples=Samples(augment=("crop", "flip")),
        weights=Weights(initialize="kaiming_normal", ema=0.9),
    )
    straight = Training(task, recipe, ONE)
    states = {}
    for step in straight:
        if step.index in (1, 7, 11, 14):
            tensors, facts = straight.state()
            states[step.index] = ({k: v.detach().clone() for k, v in tensors.items()}, facts)
    for at, (tensors, facts) in states.items():
        resumed = Training(task, recipe, ONE)
        resumed.load(tensors, facts, straight.history.rows)
        assert resumed.step == at
        for _ in resumed:
            pass
        assert torch.equal(resumed.theta.value, straight.theta.value)
        for (one, a), (_, b) in zip(resumed.state()[0].items(), straight.state()[0].items(), strict=True):
            assert torch.equal(a, b), one
        timeless = [
            [{k: v for k, v in row.items() if k != "seconds"} for row in t.history.rows] for t in (resumed, straight)
        ]
        assert timeless[0] == timeless[1]
        assert resumed.best == straight.best


def test_state_of_another_optimizer_is_refused() -> None:
    adam, sgd = (Training(TASKS["mlp"](), Recipe(optimizer=rule), ONE) for rule in (AdamW(), SGD()))
    tensors, facts = adam.state()
    with pytest.raises(UserError, match="another optimizer"):
        sgd.load(tensors, facts, [])


def test_schedule_is_a_function_of_progress() -> None:
    training = Training(
        TASKS["mlp"](), Recipe(batch=16, epochs=5, optimizer=SGD(lr=0.3), schedule=Cosine(warmup=0.25)), ONE
    )
    rates = [step.lr for step in training]
    assert len(rates) == training.total_steps == 20
    assert rates == [0.3 * Cosine(warmup=0.25)(k / 20) for k in range(20)]


def test_update_is_the_formula() -> None:
    """One step of plain SGD by hand: θ ← θ − lr·∇J, J the mean over the batch."""
    x, y = rows()
    task = Task(name="t", model=lambda: nn.Linear(6, 4), train=(x, y), normalize="scale")
    recipe = Recipe(
        batch=50, epochs=1, precision="float64", optimizer=SGD(lr=0.1, momentum=0.0), schedule=Constant(),
        samples=Samples(order="sequential"),
    )  # fmt: skip
    training = Training(task, recipe, ONE)
    model = nn.Linear(6, 4).double()
    model.load_state_dict(training.module.state_dict())
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    step = next(iter(training))
    assert step.loss == pytest.approx(loss.item(), rel=1e-14)
    for p, q in zip(model.parameters(), training.module.parameters(), strict=True):
        torch.testing.assert_close(q.data, p.data - 0.1 * p.grad, rtol=0, atol=1e-15)


def test_clipping_bounds_the_norm_of_the_update() -> None:
    settings = {"optimizer": SGD(lr=1.0, momentum=0.0), "schedule": Constant()}
    for clip, expected in ((0.01, 0.01), (1e6, None)):
        training = Training(TASKS["mlp"](), Recipe(clip=clip, batch=16, precision="float64", **settings), ONE)
        before = training.theta.value.clone()
        next(iter(training))
        moved = (training.theta.value - before).norm().item()
        assert moved == pytest.approx(expected or moved, rel=1e-9)
        assert moved <= clip


def test_evaluation_counts_every_sample_once() -> None:
    """Invariant 5: whatever the size of its batches."""
    x, y = digits(90)
    values = []
    for batch in (7, 90, 64):
        training = Training(
            BN_TASK, Recipe(batch=batch, precision="float64", weights=Weights(initialize="kaiming_normal")), ONE
        )
        assert training.built.validation is not None
        values.append(training.evaluate(training.built.validation))
    training.module.eval()
    output = training.module(training.built.normalizer(x))
    assert values[0]["accuracy"] == (output.argmax(1) == y).double().mean().item()
    for value in values:
        assert value["loss"] == pytest.approx(nn.functional.cross_entropy(output, y).item(), rel=1e-12)


def test_batch_norm_with_accumulation_is_refused() -> None:
    with pytest.raises(UserError, match="micro_batch=8 would change the result"):
        Training(BN_TASK, Recipe(batch=16), Layout(device="cpu", micro_batch=8))


def test_bf16_keeps_float32_weights() -> None:
    """Layers compute in bfloat16; θ and its gradient stay float32, and the loss stays close."""
    exact = run(BN_TASK, precision="float32", optimizer=SGD(lr=0.02))
    fast = run(BN_TASK, precision="bf16", optimizer=SGD(lr=0.02))
    assert fast[1].dtype is torch.float32
    assert exact[0] != fast[0]
    np.testing.assert_allclose(exact[0], fast[0], rtol=0.05)


def test_history_has_a_bounded_number_of_rows() -> None:
    x, y = rows(64)
    task = Task(name="t", model=lambda: nn.Linear(6, 4), train=(x, y))
    training = Training(task, Recipe(batch=1, epochs=63), ONE)
    losses = [float(step.loss) for step in training]
    every = math.ceil(len(losses) / 2000)
    assert [row["loss"] for row in training.history.rows if row["kind"] == "train"] == pytest.approx(
        [sum(losses[i : i + every]) / every for i in range(0, len(losses) - every + 1, every)]
    )
