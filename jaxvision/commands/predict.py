"""`jaxvision predict`: classes of image files, or values of a regression."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxvision.commands.workdir import workdir_of
from jaxvision.data.decode import UnreadableImage
from jaxvision.errors import UserError, printable
from jaxvision.inference.image_files import find_images
from jaxvision.inference.loading import load_run_that
from jaxvision.inference.predictor import Predictor


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Prints the best classes of each image, as text or as JSON.

  An image that cannot be read is told on the standard error, the others are answered.
  """
  workdir = workdir_of(options, config)
  if not options.inputs:
    raise UserError('predict: name the image files or folders to classify')
  if options.top < 1:
    raise UserError(f'predict: --top must be at least 1, not {options.top}')
  paths = find_images(options.inputs)
  run = load_run_that('predict', workdir, options.checkpoint)
  unreadable: dict[int, str] = {}
  if isinstance(run, Predictor):
    predictions = run.predict(_readable(run, paths, unreadable))
  else:  # what the task of a user's own makes of a run
    predictions = run.predict(paths)
  if predictions.probabilities.ndim != 2:
    raise UserError(
      f'predict: task {run.config.task} has outputs of shape '
      f'{list(predictions.probabilities.shape[1:])} for an image, which are no classes: '
      'jaxvision.load_run(workdir).predict(images) returns them in Python'
    )
  share = run.info.label_kind != 'regression'
  best = iter(predictions.top(options.top))
  rows = [
    (printable(path), unreadable.get(i), [] if i in unreadable else next(best))
    for i, path in enumerate(paths)
  ]
  _print(rows, share, options.json)
  for message in unreadable.values():
    print(f'error: {message}', file=sys.stderr)
  return 2 if unreadable else 0


def _readable(
  run: Predictor, paths: Sequence[Path], unreadable: dict[int, str]
) -> Iterator[np.ndarray]:
  """Yields the images of the files; one that is none goes into `unreadable`."""
  for i, path in enumerate(paths):
    try:
      yield run.decode(path)
    except UnreadableImage as error:
      unreadable[i] = str(error)


def _print(
  rows: Sequence[tuple[str, str | None, Sequence[tuple[str, float]]]],
  share: bool,
  as_json: bool,
) -> None:
  """Prints (file, error or None, [(class, value)]) of each image."""
  if as_json:
    kind = 'probability' if share else 'value'
    found = [
      {'file': file, 'error': error}
      if error
      else {
        'file': file,
        'predictions': [{'class': printable(n), kind: value} for n, value in best],
      }
      for file, error, best in rows
    ]
    print(json.dumps(found, indent=2))
    return
  form = '.2%' if share else '.4g'
  for file, error, best in rows:
    if not error:
      print(f'{file}: ' + ', '.join(f'{printable(n)} {v:{form}}' for n, v in best))
