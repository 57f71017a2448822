"""Tasks with a mistake each, as people make them; `good` is the one without."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from talweg import Metric, Task

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def normed():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))


def one():
    return nn.Linear(6, 1)


def changed(tensor, place, value):
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


class Samples(Dataset):
    """Samples read one by one; some of them are special."""

    def __init__(self, special=None, length=40):
        self.special, self.length = special or {}, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.special:
            return self.special[index]()
        return X[index], int(Y[index])


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(X[0], 0)])


def broken():
    raise OSError("image file is truncated")


def task(name="bad", model=net, train=(X, Y), **settings):
    """Made when it is asked for, so that a mistake in one does not hide the others."""
    return lambda: Task(name=name, model=model, train=train, **settings)


good = task("good", validation=(X, Y), metrics=("accuracy",))
images = task("images", lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), (torch.rand(40, 1, 8, 8), Y))

# data
nan_feature = task(train=(changed(X, (7, 2), float("nan")), Y))
infinite_feature = task(validation=(changed(X, (3, 0), float("inf")), Y))
nan_label = task(train=(X, changed(Y.float(), 5, float("nan"))))
nan_target = task(model=one, train=(X, changed(X[:, :1], (9, 0), float("nan"))), loss="mse")
label_too_large = task(train=(X, changed(Y, 5, 4)))
label_negative = task(train=(X, changed(Y, 11, -1)))
label_too_large_in_validation = task(validation=(X, changed(Y, 2, 40)))
labels_are_floats = task(train=(X, Y.float()))
lengths_differ = task(train=(X, Y[:39]))
lengths_differ_in_validation = task(validation=(X[:10], Y))
empty = task(train=(X[:0], Y[:0]))
empty_validation = task(validation=(X[:0], Y[:0]))
empty_dataset = task(train=Samples(length=0))
words = task(train=(np.array([["a"] * 6] * 40), Y))
objects = task(train=(np.array([None] * 40), Y))
path = task(train="data/train")
triple = task(train=(X, Y, Y))
images_into_rows = task(train=(torch.rand(40, 1, 8, 8), Y))
other_width_in_validation = task(validation=(X[:, :5], Y))
image_in_validation = task(validation=(torch.rand(40, 1, 8, 8), Y), normalize="scale")
targets_of_one_dimension = task(model=one, train=(X, X.sum(1)), loss="mse")
one_logit = task(model=one)
endless = task(train=Endless())
sample_raises = task(train=Samples({7: broken}))
sample_is_no_pair = task(train=Samples({7: lambda: X[7]}))
sample_has_another_shape = task(train=Samples({7: lambda: (X[7, :5], 1)}))
sample_of_words = task(train=Samples({i: lambda: (X[0], "cat") for i in range(40)}))

# model
returns_none = task(model=lambda: None)
is_a_module = task(model=net())
raises = task(model=lambda: nn.Linear(6, "4"))
no_parameters = task(model=nn.ReLU)
half = task(model=lambda: nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4, device="meta")))
lazy = task(model=lambda: nn.LazyLinear(4))
with_statistics = task(model=normed)


def frozen():
    module = net()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return Task(name="frozen", model=lambda: module, train=(X, Y))


# loss and metrics
unknown_loss = task(loss="cross_entrpy")
unknown_metric = task(metrics=("acuracy",))
unknown_normalizer = task(normalize="standardise")
loss_is_a_number = task(loss=3)
metrics_are_a_word = task(metrics="accuracy")
loss_returns_a_word = task(loss=lambda output, target: "0.3")
loss_raises = task(loss=lambda output, target: nn.functional.mse_loss(output.missing, target))
loss_is_cut_off = task(loss=lambda output, target: nn.functional.cross_entropy(output.detach(), target))
metric_is_a_mean = task(metrics=(Metric("top1", lambda output, target: (output.argmax(1) == target).float().mean()),))
metric_is_a_float = task(metrics=(Metric("top1", lambda output, target: 0.5),))
metric_raises = task(metrics=(Metric("top5", lambda output, target: output.topk(5)),))

not_a_task = 3
needs_arguments = lambda size: good()  # noqa: E731


def raises_inside():
    return Task(name="x", model=net, train=({}["train"], Y))
