"""Bad input: each mistake is one line that names the culprit and says what to do, exit code 2, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.helpers.commands import complaint, contents
from torch import nn

import talweg
from talweg import Layout, Recipe, Task, UserError, Weights
from talweg.optimizers import SGD
from talweg.schedules import Cosine

BAD_TASKS = Path(__file__).parent / "helpers" / "bad_tasks.py"


# Tasks of `helpers/bad_tasks.py`, what else is said on the command line, and what the complaint holds: culprit, advice.
TRAININGS: list[tuple[str, str, list[str]]] = [
    ("nan_feature", "", ["train: x is nan at row 7, position (2,)", "remove or repair that sample"]),
    ("infinite_feature", "", ["validation: x is inf at row 3", "remove or repair"]),
    ("nan_label", "", ["train: y is nan at row 5", "remove or repair"]),
    ("nan_target", "", ["train: y is nan at row 9", "remove or repair"]),
    ("label_too_large", "", ["train: the label at row 5 is 4", "4 classes labels lie in 0..3", "correct the row"]),
    ("label_negative", "", ["train: the label at row 11 is -1", "0..3"]),
    ("label_too_large_in_validation", "", ["validation: the label at row 2 is 40", "0..3"]),
    ("labels_are_floats", "", ["train: class labels must be integers, received float32", "y.long()"]),
    ("lengths_differ", "", ["train: x has 40 samples but y has 39", "give one target for each sample"]),
    ("lengths_differ_in_validation", "", ["validation: x has 10 samples but y has 40"]),
    ("empty", "", ["train: the data is empty", "give at least one sample"]),
    ("empty_validation", "", ["validation: the data is empty", "give at least one sample"]),
    ("empty_dataset", "", ["train: the dataset is empty", "give at least one sample"]),
    ("words", "", ["train: x has dtype <U1", "convert it to numbers"]),
    ("objects", "", ["train: x has dtype object", "convert it to numbers"]),
    ("path", "", ["train: received str", "give a pair (x, y)"]),
    ("triple", "", ["train: received tuple of 3", "give a pair (x, y)"]),
    ("images_into_rows", "", ["train: model or loss failed on a batch of shape [2, 1, 8, 8]", "16x8 and 6x8"]),
    ("other_width_in_validation", "", ["validation: ", "6 features", "shape [2, 5]", "the form of the training data"]),
    ("image_in_validation", "", ["validation: model or loss failed on a batch of shape [2, 1, 8, 8]"]),
    ("targets_of_one_dimension", "", ["mse", "[2, 1]", "the target [2]", "must be equal"]),
    ("one_logit", "", ["the label at row 0 is 2, but with 1 classes"]),
    ("endless", "", ["train: an IterableDataset has no sample indices", "map-style Dataset"]),
    (
        "sample_raises",
        "",
        ["train: sample 7 could not be read (OSError: image file is truncated)", "repair or remove it"],
    ),
    ("sample_raises", "--workers 2", ["train: sample 7 could not be read (OSError: image file is truncated)"]),
    ("sample_is_no_pair", "", ["train: sample 7 must be a pair (x, y), received Tensor"]),
    ("sample_has_another_shape", "", ["train: x of sample 7 has shape [5], that of sample 0 has [6]"]),
    ("sample_of_words", "", ["train: sample 0 must be two arrays or numbers", "str"]),
    ("returns_none", "", ["the model factory of task 'bad' returned NoneType", "must return an nn.Module"]),
    ("is_a_module", "", ["pass the class or a function (model=lambda: Net()), not a module"]),
    ("raises", "", ["the model factory of task 'bad' failed", "bad_tasks.py:", "TypeError"]),
    ("no_parameters", "", ["no trainable parameter"]),
    ("frozen", "", ["no trainable parameter", "are all of them frozen?"]),
    ("lazy", "", ["parameter 'weight' is lazy", "one batch first"]),
    ("half", "", ["parameter '1.weight' is on the meta device", "first"]),
    (
        "with_statistics",
        "--micro-batch 4",
        ["micro_batch=4 would change the result", "BatchNorm1d", "use micro_batch=0"],
    ),
    (
        "with_statistics",
        "--batch 13",
        ["no statistics of a batch of shape [1, 6]", "choose a batch that leaves more than one"],
    ),
    ("unknown_loss", "", ["unknown loss 'cross_entrpy': did you mean 'cross_entropy'?"]),
    ("unknown_metric", "", ["unknown metric 'acuracy': did you mean 'accuracy'?"]),
    ("unknown_normalizer", "", ["unknown normalize 'standardise': did you mean 'standardize'?"]),
    ("loss_is_a_number", "", ["loss must be a name or a function, received 3"]),
    ("metrics_are_a_word", "", ["metrics must be a tuple", "received 'accuracy'"]),
    ("loss_returns_a_word", "", ["the loss must return a scalar mean", "it returned str"]),
    ("loss_raises", "", ["model or loss failed", "bad_tasks.py:", "AttributeError", "missing"]),
    ("loss_is_cut_off", "", ["the loss does not depend on the model's parameters", "without detach()"]),
    ("metric_is_a_mean", "", ["metric 'top1' must return one value an item", "not a mean"]),
    ("metric_is_a_float", "", ["metric 'top1' must return one value an item", "not float"]),
    ("metric_raises", "", ["metric 'top5' failed", "bad_tasks.py:", "out of range"]),
    ("not_a_task", "", ["bad_tasks.py:not_a_task must be a talweg.Task or a function that returns one, not int"]),
    ("needs_arguments", "", ["bad_tasks.py:needs_arguments failed: TypeError", "missing 1 required"]),
    ("raises_inside", "", ["bad_tasks.py:", "failed: KeyError: 'train'"]),
    ("gooood", "", ["unknown task in", "'gooood': did you mean 'good'?"]),
    ("good", "--optimizer adma", ["unknown optimizer 'adma': did you mean 'adam'?"]),
    ("good", "--schedule cosin", ["unknown schedule 'cosin': did you mean 'cosine'?"]),
    ("good", "--augment flop", ["unknown augmentation 'flop': did you mean 'flip'?"]),
    ("good", "--initialize kaiming", ["unknown initialize 'kaiming': did you mean 'kaiming_", "Known: "]),
    ("good", "--momentun 0.9", ["unknown option --momentun"]),
    ("good", "--lr -0.1", ["lr must be a number above 0, received -0.1"]),
    ("good", "--lr fast", ["--lr", "'fast'"]),
    ("good", "--batch 0", ["batch must be at least 1, received 0"]),
    ("good", "--epochs 0", ["epochs must be a positive number, received 0"]),
    ("good", "--epochs nan", ["epochs must be a number, not NaN"]),
    ("good", "--optimizer sgd --momentum 1.5", ["momentum must be a number of at least 0 and below 1, received 1.5"]),
    ("good", "--optimizer adam --momentum 0.9", ["--momentum is a setting of sgd", "not of adam"]),
    ("good", "--seed -1", ["seed must be a whole number of at least 0, received -1"]),
    ("good", "--ema 1", ["ema must be at least 0 and below 1", "received 1"]),
    ("good", "--precision fp16", ["'fp16'", "bf16"]),
    ("good", "--warmup 0 --warmup-start 0.5", ["warmup_start=0.5 has no effect without a warm-up: set warmup too"]),
    ("images", "--patience 3", ["patience=3 has no effect without validation data"]),
    ("good", "--augment crop", ["augmentation needs images [N, C, H, W]", "[16, 6]"]),
    ("good", "--zero-gamma", ["zero_gamma found no residual block", "leave zero_gamma out"]),
    ("good", "--device gpu", ["device must be auto, cpu, cuda", "received 'gpu'"]),
    ("good", "--device cpu:3", ["device must be auto, cpu, cuda", "received 'cpu:3'"]),
    ("good", "--device cuda:99", ["device 'cuda:99' is not there", "device='auto' picks"]),
    ("good", "--device cpu --compile reduce-overhead", ["compile='reduce-overhead'", "cpu does not have", "use 'on'"]),
    ("good", "--workers -1", ["workers must be 0 or a positive number, received -1"]),
    ("good", "--data images", ["--data", "leave"]),
]


@pytest.mark.parametrize(("task", "words", "said"), TRAININGS, ids=[f"{t} {w}".strip() for t, w, _ in TRAININGS])
def test_a_training_that_cannot_begin_leaves_nothing(
    task: str, words: str, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"train {BAD_TASKS}:{task} --epochs 1 --batch 16 --workers 0 --out {tmp_path / 'out'} {words}"
    complained = complaint(line, capsys)
    for part in said:
        assert part in complained
    assert not (tmp_path / "out").exists()


def image(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 100).save(path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def images(folder: Path) -> Path:
    """A folder of two classes with three images each."""
    for name in ("cat/1", "cat/2", "cat/3", "dog/1", "dog/2", "dog/3"):
        image(folder / f"{name}.png")
    return folder


def idx_files(folder: Path) -> None:
    """The four files of MNIST, two images each."""
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + b"\0\0\0\2\0\0\0\1\0\0\0\1" + b"ab")
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + b"\0\0\0\2" + b"\1\2")


def with_recipe(text: str | bytes) -> Callable[[Path], object]:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / "recipe.toml").write_bytes(content)


def with_file(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


# What lies in the folder, the command (HERE is that folder), and what the complaint holds.
FILES: list[tuple[Callable[[Path], object], str, list[str]]] = [
    (with_recipe("batch = \n"), "train digits --recipe HERE/recipe.toml", ["recipe.toml is not valid TOML", "line 1"]),
    (with_recipe(b"\xff\xfe"), "train digits --recipe HERE/recipe.toml", ["recipe.toml: it is not UTF-8 text"]),
    (
        with_recipe("bacth = 3"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml", "'bacth': did you mean 'batch'?"],
    ),
    (
        with_recipe("[optimizer]\nname = 'sgd'\nmomentun = 0.9"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml", "'optimizer.momentun': did you mean 'optimizer.momentum'?"],
    ),
    (
        with_recipe("[optimizer]\nname = 'adma'"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml", "unknown optimizer 'adma': did you mean 'adam'?"],
    ),
    (
        with_recipe("[schedule]\nname = 'cosin'"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml", "unknown schedule 'cosin': did you mean 'cosine'?"],
    ),
    (
        with_recipe("[samples]\naugment = ['flop']"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml", "unknown augmentation 'flop': did you mean 'flip'?"],
    ),
    (
        with_recipe("optimizer = 'sgd'"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml", "optimizer", "[optimizer]"],
    ),
    (
        with_recipe("batch = 2.5"),
        "train digits --recipe HERE/recipe.toml",
        ["batch must be a whole number, received 2.5"],
    ),
    (
        with_recipe("[optimizer]\nname = 'sgd'\nlr = 'high'"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml: optimizer.lr must be a number, received 'high'"],
    ),
    (
        with_recipe("[optimizer]\nname = 'sgd'\nlr = -1.0"),
        "train digits --recipe HERE/recipe.toml",
        ["recipe.toml: ", "lr must be a number above 0, received -1"],
    ),
    (with_recipe(""), "train digits --recipe HERE/absent.toml", ["no such file: ", "absent.toml"]),
    (with_recipe(""), "train digits --recipe HERE", ["cannot read HERE: Is a directory", "give a TOML file"]),
    (with_file("a.py", "task = ("), "train HERE/a.py:task", ["a.py", "SyntaxError", "line 1"]),
    (with_file("a.py", "\nimport torhc"), "train HERE/a.py:task", ["a.py:2 failed", "No module named 'torhc'"]),
    (with_file("a.py", "task = 3"), "train HERE/a.py", ["a.py is a file: say which task in it", "a.py:NAME"]),
    (with_file("a.py", ""), "train HERE/b.py:task", ["no such file: ", "b.py"]),
    (with_file("a.py", ""), "train digit", ["unknown task 'digit': did you mean 'digits'?"]),
    (with_file("x", ""), "train digits --data HERE", ["task 'digits' brings its own data", "leave --data out"]),
    (with_file("x", ""), "train digits --model resnet9", ["unknown model 'resnet9': did you mean 'resnet8'?"]),
    (with_file("x", ""), "train digits --model gpt", ["model 'gpt' is not for images", "choose another one"]),
    (
        with_file("x", ""),
        "train digits --model lenet5",
        ["train: model or loss failed on a batch of shape [2, 1, 8, 8]"],
    ),
    (with_file("x", ""), "train cifar10", ["task 'cifar10' needs data", "give --data PATH"]),
    (with_file("x", ""), "train cifar10 --data HERE", ["no CIFAR-10 in 'HERE'", "put data_batch_1.bin"]),
    (
        with_file("x", ""),
        "train mnist --data HERE",
        ["no train-images-idx3-ubyte in 'HERE'", "put the four MNIST files there"],
    ),
    (
        with_file("x", ""),
        "train images --data HERE",
        ["'HERE' must hold one folder of images for each class", "found none"],
    ),
    (with_file("x", ""), "train images --data HERE/absent", ["no folder 'HERE/absent'", "put images into"]),
    (
        with_file("x", ""),
        "train bytes --data HERE/absent",
        ["cannot read the text", "absent", "give the path of a text file"],
    ),
    (with_file("x", "short"), "train bytes --data HERE/x", ["the text has 5 bytes, too few", "give a longer text"]),
    (
        lambda folder: cut_short(images(folder) / "dog" / "2.png"),
        "train images --data HERE",
        ["dog/2.png", "repair or remove the file"],
    ),
    (
        lambda folder: (images(folder) / "cat" / "2.png").write_text("no image"),
        "train images --data HERE",
        ["cat/2.png", "repair or remove the file"],
    ),
    (
        lambda folder: image(images(folder) / "cat" / "4.png", size=(9, 8)),
        "train images --data HERE",
        ["cat/4.png", "pixels", "resize"],
    ),
    (
        lambda folder: (idx_files(folder), cut_short(folder / "train-images-idx3-ubyte")),
        "train mnist --data HERE",
        ["train-images-idx3-ubyte", "fetch the file again"],
    ),
    (
        lambda folder: (idx_files(folder), (folder / "t10k-labels-idx1-ubyte").unlink()),
        "train mnist --data HERE",
        ["no t10k-labels-idx1-ubyte in 'HERE'", "put the four MNIST files there"],
    ),
    (with_file("x", ""), "schedule cosin", ["unknown schedule 'cosin': did you mean 'cosine'?"]),
    (
        with_file("x", ""),
        "schedule cosine --plot HERE/x/y.png",
        ["cannot write the picture HERE/x/y.png", "give another path"],
    ),
    (with_file("x", ""), "schedule cosine --plot HERE/y.pdf", ["must be a file name that ends in .png", "y.pdf"]),
    (with_file("x", ""), "schedule cosine --plot HERE/y.png --lr 0", ["lr must be a number above 0"]),
    (with_file("x", ""), "schedule step --gamma 2", ["gamma must be a number", "received 2"]),
    (with_file("x", ""), "trian digits", ["unknown command 'trian': did you mean 'train'?"]),
    (with_file("x", ""), "resume HERE", ["HERE is not a run folder: it has no summary.json"]),
    (with_file("x", ""), "resume HERE/absent", ["HERE/absent is not a run folder"]),
    (with_file("x", ""), "evaluate HERE", ["HERE is not a run folder: it has no summary.json"]),
    (with_file("x", ""), "evaluate HERE/x", ["HERE/x is not a run folder"]),
    (with_file("summary.json", '{"a": 1}'), "resume HERE", ["summary.json is not the summary of a run"]),
    (with_file("summary.json", "{"), "evaluate HERE", ["cannot read HERE/summary.json"]),
    (
        with_file("out", ""),
        f"train {BAD_TASKS}:good --out HERE/out",
        ["cannot write HERE/out", "choose another place with --out"],
    ),
    (
        with_file("out", ""),
        f"train {BAD_TASKS}:good --out HERE/out/x",
        ["cannot write HERE/out", "choose another place"],
    ),
]


@pytest.mark.parametrize(
    ("lay", "line", "said"),
    FILES,
    ids=[f"{number} {line}".replace(str(BAD_TASKS), "") for number, (_, line, _) in enumerate(FILES)],
)
def test_files_that_are_not_what_they_must_be(
    lay: Callable[[Path], object],
    line: str,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    lay(here)
    before = contents(tmp_path)
    complained = complaint(line.replace("HERE", str(here)), capsys)
    for part in said:
        assert part.replace("HERE", str(here)) in complained
    assert contents(tmp_path) == before
    assert not list(elsewhere.iterdir())


ROWS = (torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3)


def task(**settings: Any) -> Task:
    return Task(**{"name": "t", "model": lambda: nn.Linear(3, 3), "train": ROWS, **settings})


# What is done in Python, and what the error holds.
CALLS: list[tuple[Callable[[], object], list[str]]] = [
    (lambda: task(loss="cross_entrpy"), ["unknown loss 'cross_entrpy': did you mean 'cross_entropy'?"]),
    (lambda: task(metrics=("acuracy",)), ["unknown metric 'acuracy': did you mean 'accuracy'?"]),
    (lambda: task(metrics=("accuracy", 3)), ["metrics must be names or talweg.Metric objects, received 3"]),
    (lambda: task(model=nn.Linear(3, 3)), ["pass the class or a function"]),
    (lambda: task(model="resnet20"), ["model must be a function that returns a fresh nn.Module, received 'resnet20'"]),
    (lambda: task(train=None), ["train must be the training data, received None"]),
    (lambda: task(name=""), ["name must be", "received ''"]),
    (lambda: Recipe(batch=0), ["batch must be at least 1, received 0"]),
    (lambda: Recipe(batch="64"), ["batch must be a whole number, received '64'"]),
    (lambda: Recipe(batch=True), ["batch must be a whole number, received True"]),
    (lambda: Recipe(epochs=float("nan")), ["epochs must be a number, not NaN"]),
    (lambda: Recipe(optimizer="adam"), ["optimizer", "'adam'"]),
    (lambda: Recipe(precision="fp32"), ["unknown precision 'fp32': did you mean 'float32'?"]),
    (lambda: Recipe(optimizer=SGD(lr=float("inf"))), ["lr must be a number above 0", "inf"]),
    (lambda: SGD(lr=0.1, momentum=1.5), ["momentum must be a number of at least 0 and below 1, received 1.5"]),
    (lambda: Cosine(warmup=1.0), ["warmup must be", "received 1.0"]),
    (lambda: Weights(initialize="kaimin_normal"), ["'kaimin_normal': did you mean 'kaiming_normal'?"]),
    (lambda: Layout(compile="always"), ["unknown compile 'always'", "Known: auto, off, on, reduce-overhead"]),
    (lambda: Layout(micro_batch=-1), ["micro_batch must be 0", "received -1"]),
    (lambda: Recipe.from_table({"optimiser": {}}), ["unknown setting 'optimiser': did you mean 'optimizer'?"]),
    (lambda: talweg.train("digit"), ["unknown task 'digit': did you mean 'digits'?"]),
    (lambda: talweg.train(task(train=(ROWS[0], ROWS[1][:5]))), ["train: x has 20 samples but y has 5"]),
    (lambda: talweg.train(task(), Recipe(patience=2)), ["patience=2 has no effect without validation data"]),
    (lambda: talweg.Training(task(train=(ROWS[0], ROWS[1] + 1))), ["train: the label at row 2 is 3"]),
    (lambda: talweg.resume("nowhere"), ["nowhere is not a run folder"]),
    (lambda: talweg.evaluate("nowhere", data="tset"), ["unknown data 'tset': did you mean 'test'?"]),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_mistakes_in_python(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, said = CALLS[number]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    for part in said:
        assert part in text
    assert not list(tmp_path.iterdir())
