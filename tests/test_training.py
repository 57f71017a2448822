"""The loop and the invariants of DESIGN §4 that one process can break."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from talweg import Layout, Metric, Recipe, Samples, StopKind, Task, Training, UserError, Weights
from talweg.data import load_digits
from talweg.nn.models import gpt, lstm_classifier, mlp, resnet8
from talweg.optimizers import LAMB, LARS, RULES, SGD, AdamW, Rule
from talweg.schedules import Constant, Cosine

ONE = Layout(device="cpu", threads=1, compile="off")
TOLERANCE = 1e-10


def rows(n: int = 50, features: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, (x[:, :classes]).argmax(1)


def tokens(n: int = 26, length: int = 7, vocabulary: int = 11) -> tuple[Tensor, Tensor]:
    x = torch.randint(vocabulary, (n, length + 1), generator=torch.Generator().manual_seed(2))
    return x[:, :-1].contiguous(), x[:, 1:].contiguous()


def group_norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def digits(n: int = 70) -> tuple[Tensor, Tensor]:
    train = load_digits().train
    return train.x[:n], train.y[:n]


TASKS = {
    "mlp": lambda: Task(name="mlp", model=lambda: mlp(6, 4, hidden=(16,)), train=rows(), metrics=("accuracy",)),
    "conv": lambda: Task(name="conv", model=group_norm_net, train=digits(), metrics=("accuracy",)),
    "lstm": lambda: Task(
        name="lstm", model=lambda: lstm_classifier(11, 4, width=8), train=(tokens()[0], tokens()[0][:, 0] % 4)
    ),
    "gpt": lambda: Task(name="gpt", model=lambda: gpt(11, context=7, width=16, heads=2, layers=1), train=tokens()),
}
BN_TASK = Task(name="bn", model=lambda: resnet8(1, 10), train=digits(200), validation=digits(90), metrics=("accuracy",))


def run(task: Task, layout: Layout = ONE, steps: int = 10, **recipe: object) -> tuple[list[float], Tensor]:
    """The losses of the first steps and θ after them."""
    settings = {"batch": 16, "epochs": 20, "precision": "float64", "weights": Weights(initialize="kaiming_normal")}
    training = Training(task, Recipe(**{**settings, **recipe}), layout)
    losses = []
    for step in training:
        losses.append(float(step.loss))
        if len(losses) == steps:
            break
    return losses, training.theta.value.clone()


def assert_equal(one: tuple[list[float], Tensor], other: tuple[list[float], Tensor]) -> None:
    np.testing.assert_allclose(one[0], other[0], rtol=TOLERANCE, atol=0)
    assert ((one[1] - other[1]).norm() / one[1].norm()).item() <= TOLERANCE


def assert_bit_equal(one: tuple[list[float], Tensor], other: tuple[list[float], Tensor]) -> None:
    assert one[0] == other[0]
    assert torch.equal(one[1], other[1])


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


class Rising(nn.Module):
    """Its accuracy rises and falls with the number of updates: best is known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.w.expand(len(x), 1)


def rising(patience: float, epochs: float = 12) -> Training:
    """w rises by 1 an update (one an epoch); the metric is best at w = 4."""
    closeness = Metric("closeness", lambda output, target: -(output - 4.0).abs())
    x = torch.zeros(8, 1)
    task = Task(
        name="rising", model=Rising, train=(x, x), validation=(x, x), metrics=(closeness,), normalize="scale",
        loss=lambda output, target: -output.mean(),
    )  # fmt: skip
    recipe = Recipe(
        batch=8,
        epochs=epochs,
        patience=patience,
        optimizer=SGD(lr=1.0, momentum=0.0, weight_decay=0.0),
        schedule=Constant(),
    )
    return Training(task, recipe, ONE)


def test_the_best_is_kept() -> None:
    """Invariant 7."""
    training = rising(patience=0)
    marks = [step.is_best for step in training]
    assert marks == [True] * 4 + [False] * 8
    assert training.best is not None
    assert training.best["step"] == 4
    assert training.theta["w"].item() == 4.0
    assert training.stop is not None
    assert training.stop.kind is StopKind.COMPLETED


def test_early_stopping_says_why_and_returns_the_best() -> None:
    training = rising(patience=3)
    assert len(list(training)) == 7
    assert training.stop is not None
    assert training.stop.kind is StopKind.EARLY
    assert "closeness" in training.stop.text
    assert "3 epochs" in training.stop.text
    assert training.theta["w"].item() == 4.0


def test_without_validation_the_last_weights_are_kept() -> None:
    training = Training(TASKS["mlp"](), Recipe(batch=16, epochs=2, weights=Weights(ema=0.5)), ONE)
    for _ in training:
        last = training.theta.value.clone()
    assert training.best is None
    assert training.built.ema is not None
    assert torch.equal(training.theta.value, training.built.ema.vectors()["value"])
    assert not torch.equal(training.theta.value, last)


class Explodes(nn.Module):
    """Gives an infinity from the batch on in which a sample is larger than 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.second(h / 0.0 if x.max() > 2.0 else h)


def test_non_finite_loss_stops_before_the_update_and_names_the_layer() -> None:
    x, y = rows(64)
    x = x.clamp(-1.9, 1.9)
    x[40, 2] = 3.0  # sample 40 is in the third batch of 16
    task = Task(name="t", model=Explodes, train=(x, y), normalize="scale")
    training = Training(task, Recipe(batch=16, samples=Samples(order="sequential")), ONE)
    steps = [(step.index, training.theta.value.clone()) for step in training]
    assert [index for index, _ in steps] == [1, 2]
    assert training.stop is not None
    assert training.stop.kind is StopKind.NON_FINITE
    assert "update 3" in training.stop.text
    assert "'second' (Linear)" in training.stop.text
    assert torch.equal(training.theta.value, steps[-1][1])


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_non_finite_gradient_stops_too(clip: float) -> None:
    """√|w| has an infinite slope at 0: the loss is finite, its gradient is not."""

    class Kink(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.w.abs() + 0 * x).sqrt()

    x = torch.ones(8, 1)
    task = Task(name="t", model=Kink, train=(x, x), loss="mse", normalize="scale")
    training = Training(task, Recipe(batch=8, epochs=2, clip=clip), ONE)
    assert list(training) == []
    assert training.stop is not None
    assert training.stop.kind is StopKind.NON_FINITE
    assert "the gradient of update 1 is not finite (first in the gradient of 'w'" in training.stop.text
    assert bool(training.theta.value.isfinite().all())


def test_stop_request_ends_after_the_update() -> None:
    training = Training(TASKS["mlp"](), Recipe(batch=16, epochs=4), ONE)
    for step in training:
        if step.index == 3:
            training.request_stop("enough")
    assert step.index == 4
    assert training.stop == (StopKind.INTERRUPTED, "enough")


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
    assert [row["loss"] for row in training.history.rows] == pytest.approx(
        [sum(losses[i : i + every]) / every for i in range(0, len(losses) - every + 1, every)]
    )


def without_host(training: Training) -> Training:
    """The training as on an accelerator, where the host never waits for a loss; its tensors stay on the CPU."""
    training._halt = torch.zeros(())
    return training


@pytest.mark.parametrize("rule", [SGD(lr=0.05), AdamW(lr=1e-3), LAMB(lr=1e-2)], ids=lambda r: type(r).__name__)
def test_the_loop_without_host_is_the_same_loop(rule: Rule) -> None:
    recipe = Recipe(batch=16, epochs=2, clip=1.0, optimizer=rule, weights=Weights(initialize="kaiming_normal"))
    one, other = Training(BN_TASK, recipe, ONE), without_host(Training(BN_TASK, recipe, ONE))
    losses = [[float(step.loss) for step in training] for training in (one, other)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    torch.testing.assert_close(one.theta.value, other.theta.value, rtol=1e-4, atol=1e-5)
    assert len(one.history.rows) == len(other.history.rows)


@pytest.mark.parametrize("name", RULES)
def test_without_host_the_first_bad_update_is_not_done_either(name: str) -> None:
    """It is found some updates later; until then a flag on the device keeps θ as it was."""
    x, y = rows(64)
    x = x.clamp(-1.9, 1.9)
    x[40, 2] = 3.0
    task = Task(name="t", model=Explodes, train=(x, y), normalize="scale")
    recipe = Recipe(batch=16, samples=Samples(order="sequential"), optimizer=RULES[name](lr=0.01))
    training = without_host(Training(task, recipe, ONE))
    values = [training.theta.value.clone() for _ in training]
    assert training.stop is not None
    assert training.stop.kind is StopKind.NON_FINITE
    assert "update 3" in training.stop.text
    assert training.step == 2
    assert torch.equal(training.theta.value, values[1])
    assert bool(training.theta.value.isfinite().all())
