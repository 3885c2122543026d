"""`jaxvision lr-find`: a learning rate for a config, by training on a ramp of them."""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.commands.workdir import workdir_of
from jaxvision.io import output_directory, write_whole, writing
from jaxvision.training import lr_finder, runtime
from jaxvision.training.lr_finder import LearningRateCurve
from jaxvision.training.run_directory import write_json


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Finds a learning rate and prints what was found."""
  assert config is not None
  curve, chart = lr_find(
    config,
    workdir_of(options, config),
    minimum=options.min,
    maximum=options.max,
    steps=options.steps,
    quiet=False,
  )
  print(*lines(curve), f'written: {chart}', sep='\n')
  return 0


def lr_find(
  config: ConfigDict, workdir: str | Path, **options: Any
) -> tuple[LearningRateCurve, Path]:
  """Finds a learning rate, and writes lr_find.json and lr_find.png.

  Args:
    config: from `load_config` or `base_config`.
    workdir: directory to write them to, which may hold a run, or be one's later.
    **options: of `lr_finder.find`.

  Returns:
    (the curve, path of lr_find.png).

  Raises:
    UserError: see `lr_finder.find`; or the directory cannot be written.
  """
  folder = output_directory(workdir, 'lr-find: --workdir')
  curve = lr_finder.find(config, **options)
  known = {'config_name': config.name, 'model': config.model.name}
  with writing(folder, 'lr-find: --workdir'):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'lr_find.json', {**known, **curve.to_json(), **runtime.facts()})
    from jaxvision.reports import lr_curve, style  # matplotlib: once there is a result

    chart = folder / 'lr_find.png'
    write_whole(chart, style.reduced(style.png(lr_curve.draw(curve))))
  return curve, chart


def lines(curve: LearningRateCurve) -> list[str]:
  """Returns what was found as lines to read."""
  found = [
    f'{len(curve.rates)} of {curve.steps} steps of {curve.batch_size} images, at rates '
    f'from {curve.rates[0]:.3g} to {curve.rates[-1]:.3g}'
    + (f': {curve.stopped}' if curve.stopped else '')
  ]
  if curve.steepest is None or curve.minimum_tenth is None:
    return [
      *found,
      'no learning rate of these lowers the loss: begin at a smaller --min',
    ]
  return [
    *found,
    f'steepest descent        {curve.steepest:.3g}',
    f'a tenth of the minimum  {curve.minimum_tenth:.3g}',
    f'train with --config.optimizer.learning_rate={curve.steepest:.2g}',
  ]
