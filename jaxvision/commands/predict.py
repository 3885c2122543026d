"""`jaxvision predict`: classes of image files, or values of a regression."""

import argparse
import json

from ml_collections import ConfigDict

from jaxvision.commands.workdir import workdir_of
from jaxvision.errors import UserError
from jaxvision.inference.image_files import find_images
from jaxvision.inference.loading import load_run_that


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Prints the best classes of each image, as text or as JSON."""
  workdir = workdir_of(options, config)
  if not options.inputs:
    raise UserError('predict: name the image files or folders to classify')
  if options.top < 1:
    raise UserError(f'predict: --top must be at least 1, not {options.top}')
  paths = find_images(options.inputs)
  run = load_run_that('predict', workdir, options.checkpoint)
  predictions = run.predict(paths)
  if predictions.probabilities.ndim != 2:
    raise UserError(
      f'predict: task {run.config.task} has outputs of shape '
      f'{list(predictions.probabilities.shape[1:])} for an image, which are no classes: '
      'jaxvision.load_run(workdir).predict(images) returns them in Python'
    )
  share = run.info.label_kind != 'regression'
  rows = list(zip(map(str, paths), predictions.top(options.top)))
  if options.json:
    kind = 'probability' if share else 'value'
    found = [
      {
        'file': path,
        'predictions': [{'class': name, kind: value} for name, value in best],
      }
      for path, best in rows
    ]
    print(json.dumps(found, indent=2))
    return 0
  form = '.2%' if share else '.4g'
  for path, best in rows:
    print(f'{path}: ' + ', '.join(f'{name} {value:{form}}' for name, value in best))
  return 0
