"""Iterate the training yourself: look at every update, and stop by a rule of your own.

    python examples/own_loop.py

Prints a line an epoch and ends when three epochs in a row were above 97 % validation accuracy:

    epoch  1  loss 1.37  accuracy 88.89 %
    ...
    epoch  6  loss 0.01  accuracy 98.89 %
    stopped after epoch 6: three epochs in a row above 97 %
    kept the best weights, those of epoch 6: 98.89 %

Takes about 3 s on one CPU thread.
"""

from talweg import Recipe, Training
from talweg.optimizers import SGD
from talweg.tasks import TaskSource, load_task


def main() -> None:
    task = load_task(TaskSource(name="digits")).task
    recipe = Recipe(epochs=20, optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4))
    training = Training(task, recipe)  # the model, the data and the first weights are ready; nothing has run yet
    good, losses = 0, []
    for step in training:  # one pass of the loop is one update of the weights
        losses.append(float(step.loss))
        if step.validation is None:  # it is filled at the end of each epoch
            continue
        accuracy, loss = 100 * step.validation["accuracy"], sum(losses) / len(losses)
        print(f"epoch {step.epoch:2.0f}  loss {loss:.2f}  accuracy {accuracy:.2f} %")
        losses = []
        good = good + 1 if accuracy > 97 else 0
        if good == 3:
            print(f"stopped after epoch {step.epoch:.0f}: three epochs in a row above 97 %")
            break
    training.keep_best()  # after a break, the model holds the last weights until you ask for the best
    best = training.best
    print(f"kept the best weights, those of epoch {best['epoch']:.0f}: {100 * best['accuracy']:.2f} %")


if __name__ == "__main__":
    main()
