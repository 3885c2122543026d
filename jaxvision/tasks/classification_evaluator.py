"""Evaluation of a classifier that trains."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision.commands.say import probabilities, result_line, write_report
from jaxvision.data.dataset import Dataset
from jaxvision.tasks import Task
from jaxvision.training import step as programs
from jaxvision.training.logging import read_history
from jaxvision.training.outcome import Outcome
from jaxvision.training.run_directory import RunDirectory

_WATCHED = 24  # images whose predictions are drawn at every evaluation


class Classifying:
  """An `Examiner` by the validation split, or the test split where there is none.

  Args:
    config, directory, task, mesh: of the run.
    dataset: as loaded, with its images.
    inputs: the same, or the features of its images where the task takes these.
    state: whose shapes the programs are compiled for.
    compiler: keeps account of what is compiled.
  """

  def __init__(
    self,
    config: ConfigDict,
    directory: RunDirectory,
    dataset: Dataset,
    inputs: Dataset,
    task: Task,
    mesh: jax.sharding.Mesh,
    state: Any,
    compiler: programs.Compiler,
  ):
    self.split = 'validation' if 'validation' in dataset.splits else 'test'
    self._config, self._directory, self._dataset = config, directory, dataset
    self._evaluators = {
      name: programs.Evaluator(
        task,
        mesh,
        inputs.splits[name],
        inputs.pipeline,
        state,
        config.eval_batch_size,
        config.data.workers,
        compiler,
      )
      for name in dict.fromkeys([self.split, 'test'])
    }

    # One host of several has no more than its own part of the outputs.
    count = len(dataset.splits[self.split]) if jax.process_count() == 1 else 0
    places = np.linspace(0, count - 1, min(_WATCHED, count)).astype(int)
    self._watched = places.tolist()
    self._logits = np.zeros(0)

  def measure(self, state: Any) -> dict[str, float]:
    """Returns loss and accuracies on `split`."""
    evaluator = self._evaluators[self.split]
    measured, self._logits = evaluator.measure_and_watch(state, self._watched)
    return measured

  def picture(self) -> np.ndarray | None:
    """Draws a few images, the same each time, with what was made of them."""
    if not len(self._logits):
      return None
    from jaxvision.reports import image_grid

    source = self._dataset.splits[self.split]
    examples = [source[i] for i in self._watched]
    return image_grid.prediction_grid(
      [np.asarray(image) for image, _ in examples],
      np.array([label for _, label in examples]),
      probabilities(self._logits),
      self._dataset.class_names,
    )

  def finish(self, state: Any) -> Outcome:
    """Evaluates on the test split."""
    measured, logits, labels = self._evaluators['test'].outputs(state)
    history = read_history(self._directory.metrics_file)
    validation = [p for p in history if p['split'] == 'validation']
    return Outcome(
      values={
        'validation_loss': validation[-1]['loss'] if validation else None,
        'validation_accuracy': validation[-1]['accuracy'] if validation else None,
        'test_loss': measured['loss'],
        'test_accuracy': measured['accuracy'],
        'test_accuracy_top5': measured['accuracy_top5'],
      },
      line=result_line('test', measured, len(labels), self._dataset.synthetic),
      write_report=lambda summary: write_report(
        self._directory, self._config, self._dataset, 'test', summary, logits, labels
      ),
    )

  def training(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns loss and accuracy of training."""
    return {f'train_{name}': measured.get(name) for name in ('loss', 'accuracy')}
