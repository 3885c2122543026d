"""`jaxvision predict`: classes of image files, or values of a regression."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxvision.commands.workdir import workdir_of
from jaxvision.data.decode import UnreadableImage
from jaxvision.errors import UserError, printable
from jaxvision.inference.classifier import Classifier, Predictions
from jaxvision.inference.image_files import find_images
from jaxvision.inference.loading import load_model, load_run_that


class _Row(NamedTuple):
  """What is said of a file: its best classes, or why it cannot be read."""

  file: str
  error: str
  best: Sequence[tuple[str, float]]


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Prints the best classes of each image, as text or as JSON, batch by batch.

  An image that cannot be read is told on the standard error, the others are answered.
  """
  if options.model and (options.workdir or config is not None):
    raise UserError('predict: name either a run with --workdir, or a file with --model')
  workdir = None if options.model else workdir_of(options, config)
  if not options.inputs:
    raise UserError('predict: name the image files or folders to classify')
  if options.top < 1:
    raise UserError(f'predict: --top must be at least 1, not {options.top}')
  paths = find_images(options.inputs)
  if workdir is None:
    model = load_model(options.model)
    if not hasattr(model, 'predict'):
      raise UserError(f'predict: {options.model} draws images and classifies none')
  else:
    model = load_run_that('predict', workdir, options.checkpoint)
  if isinstance(model, Classifier):
    rows = _rows(model, paths, options.top)
    kind = model.signature.kind
  else:  # what the task of a user's own makes of a run
    best = _checked(model.predict(paths), model).top(options.top)
    rows = (_Row(printable(path), '', found) for path, found in zip(paths, best))
    kind = model.info.label_kind
  unreadable = 0
  printed = _json(rows, kind) if options.json else _text(rows, kind)
  for error in printed:
    unreadable += 1
    print(f'error: {error}', file=sys.stderr)
  return 2 if unreadable else 0


def _rows(model: Classifier, paths: Sequence[Path], top: int) -> Iterator[_Row]:
  """Yields what is said of each file; a batch of images is held at a time."""
  size = model.largest_batch()
  for first in range(0, len(paths), size):
    part = paths[first : first + size]
    errors: dict[Path, str] = {}
    images = [
      image for path in part if (image := _decoded(model, path, errors)) is not None
    ]
    predictions = model.predict(images, batch_size=size)
    best = iter(_checked(predictions, model).top(top))
    for path in part:
      error = errors.get(path, '')
      yield _Row(printable(path), error, [] if error else next(best))


def _decoded(
  model: Classifier, path: Path, errors: dict[Path, str]
) -> np.ndarray | None:
  """Returns the image of a file; None of one that is none, which goes into `errors`."""
  try:
    return model.decode(path)
  except UnreadableImage as error:
    errors[path] = str(error)
    return None


def _checked(predictions: Predictions, model: Any) -> Predictions:
  if predictions.probabilities.ndim != 2:
    raise UserError(
      f'predict: task {model.config.task} has outputs of shape '
      f'{list(predictions.probabilities.shape[1:])} for an image, which are no classes: '
      'jaxvision.load_run(workdir).predict(images) returns them in Python'
    )
  return predictions


def _text(rows: Iterator[_Row], kind: str) -> Iterator[str]:
  """Prints a line for each image that can be read; yields what is wrong with the others."""
  form = '.4g' if kind == 'regression' else '.2%'
  for file, error, best in rows:
    if error:
      yield error
    else:
      print(f'{file}: ' + ', '.join(f'{printable(n)} {v:{form}}' for n, v in best))


def _json(rows: Iterator[_Row], kind: str) -> Iterator[str]:
  """Prints a list with an object for each image; yields what is wrong with some."""
  what = 'value' if kind == 'regression' else 'probability'
  before = '['
  for file, error, best in rows:
    said: dict[str, Any] = {'file': file}
    if error:
      said['error'] = error
      yield error
    else:
      said['predictions'] = [{'class': printable(n), what: value} for n, value in best]
    print(before)
    print('  ' + json.dumps(said, indent=2).replace('\n', '\n  '), end='')
    before = ','
  print('\n]')
