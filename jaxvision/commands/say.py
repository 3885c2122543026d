"""What the commands tell: lines on the terminal, and the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.dataset import Dataset
from jaxvision.training.build import DataFacts
from jaxvision.training.logging import read_history
from jaxvision.training.run_directory import RunDirectory


def speaker(quiet: bool) -> Callable[[str], None]:
  """Returns what prints a line, or does nothing."""
  return (lambda text: None) if quiet else (lambda text: print(text, flush=True))


def describe_data(dataset: Dataset, facts: DataFacts) -> str:
  """Returns a line about a data set."""
  height, width, channels = facts.image_shape
  sizes = ', '.join(f'{n:,} {split}' for split, n in facts.examples.items())
  made_up = ' (SYNTHETIC: made-up images)' if facts.synthetic else ''
  skipped = f', {facts.skipped} unreadable files passed over' if facts.skipped else ''
  return (
    f'data: {facts.name}{made_up}, {sizes}; {len(facts.class_names)} classes, '
    f'{height}x{width}x{channels}, {dataset.pipeline}{skipped}'
  )


def result_line(
  split: str, measured: dict[str, float], examples: int, synthetic: bool, more: str = ''
) -> str:
  """Returns a line about an evaluation; `more` goes to the end of its brackets."""
  made_up = ', made up' if synthetic else ''
  return (
    f'{split}: loss {measured["loss"]:.4f}  accuracy {measured["accuracy"]:.2%}  '
    f'top-5 {measured["accuracy_top5"]:.2%}  ({examples:,} images{made_up}{more})'
  )


def data_notes(dataset: Dataset) -> list[str]:
  """Returns what a reader of a report must know first of its data."""
  notes = []
  if dataset.synthetic:
    notes.append('The images are synthetic: no number here says anything of real data.')
  if dataset.skipped:
    notes.append(f'{dataset.skipped} unreadable image files were passed over.')
  return notes


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Returns the softmax of float [n, K]."""
  shifted = np.exp(logits - logits.max(-1, keepdims=True))
  return shifted / shifted.sum(-1, keepdims=True)


def write_report(
  directory: RunDirectory,
  config: ConfigDict,
  dataset: Dataset,
  split: str,
  summary: dict[str, Any],
  logits: np.ndarray,
  labels: np.ndarray,
) -> Path:
  """Writes the report of a run and returns the path of its page.

  Args:
    directory, config, dataset: of the run.
    split: that was evaluated.
    summary: of the run.
    logits: float [n, K], of every image of the split in order.
    labels: int [n].
  """
  from jaxvision.reports.run import report  # matplotlib: only once there is a result

  return report.write_report(
    directory.path,
    summary=summary,
    config=config.to_dict(),
    history=read_history(directory.metrics_file),
    labels=labels,
    probabilities=probabilities(logits),
    class_names=dataset.class_names,
    image_at=lambda i: dataset.splits[split][i][0],
    split=split,
    notes=data_notes(dataset),
  )
