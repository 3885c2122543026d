"""`jaxvision sample`: images drawn with a generative model."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision.commands.workdir import workdir_of
from jaxvision.errors import UserError
from jaxvision.inference.generator import GeneratorRun, load_generator
from jaxvision.inference.loading import load_run_that
from jaxvision.inference.onnx_generator import OnnxGenerator, load_onnx_generator
from jaxvision.io import local_path, output_directory, output_file, writing


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Draws images and prints where they are."""
  workdir = None
  if options.workdir or config is not None:
    workdir = workdir_of(options, config)
  run = generator(workdir, options.weights, options.checkpoint)
  run = run.with_settings(_settings(options.overrides))
  paths = sample(
    run,
    options.output or ('samples' if options.files else 'samples.png'),
    count=options.count,
    seed=options.seed,
    label=options.label,
    rows=options.interpolate,
    single=options.files,
    scale=options.scale,
  )
  more = f' and {len(paths) - 1} more' if len(paths) > 1 else ''
  print(f'drawn with {run.origin}: {paths[0]}{more}')
  return 0


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
  """Returns the fields of the section `flow` that overrides set, checked."""
  section = config_lib.override(config_lib.base_config(), overrides).flow
  named = {override.partition('=')[0].strip() for override in overrides}
  return {name: value for name, value in section.items() if f'flow.{name}' in named}


def generator(
  workdir: str | Path | None = None,
  weights: str | Path | None = None,
  checkpoint: str | int = 'last',
) -> GeneratorRun | OnnxGenerator:
  """Returns what draws in a run, or in a file that `export` wrote of one.

  Raises:
    UserError: neither or both are given, or there is no generator.
  """
  if (workdir is None) == (weights is None):
    raise UserError('sample: say which generator with --workdir=DIR or --weights=FILE')
  if weights is not None:
    path = local_path(weights, 'sample: --weights')
    return load_onnx_generator(path) if path.suffix == '.onnx' else load_generator(path)
  return load_run_that('sample', workdir, checkpoint)


def sample(
  run: GeneratorRun | OnnxGenerator,
  output: str | Path,
  *,
  count: int = 64,
  seed: int = 0,
  label: str | int | None = None,
  rows: int = 0,
  single: bool = False,
  scale: int = 0,
) -> list[Path]:
  """Draws images and writes them as PNG.

  Args:
    run: what draws.
    output: the file of the grid; with `single` the directory of the files.
    count: images, where `rows` is 0.
    seed: of the noise.
    label: see `GeneratorRun.sample`.
    rows: of interpolation instead, ten images each; 0: none.
    single: one file per image, sample_SEED_NUMBER.png, instead of a grid.
    scale: pixels for a pixel of the image; 0: so that a grid is easily seen, and 1 in
      single files.

  Returns:
    The paths written.

  Raises:
    UserError: a value is impossible, or the place cannot be written.
  """
  from jaxvision.reports import image_grid

  if rows < 0 or scale < 0:
    raise UserError('sample: --interpolate and --scale cannot be negative')
  path = (output_directory if single else output_file)(output, 'sample: --output')
  columns = 0
  if rows:
    images = run.interpolate(rows, seed=seed)
    columns = images.shape[1]
    images = images.reshape(-1, *images.shape[2:])
  else:
    images = run.sample(count, seed, label)
  with writing(path, 'sample: --output'):
    if single:
      path.mkdir(parents=True, exist_ok=True)
      paths = [path / f'sample_{seed}_{i:05}.png' for i in range(len(images))]
      for file, image in zip(paths, images):
        larger = image.repeat(scale or 1, 0).repeat(scale or 1, 1)
        image_grid.save_png(file, larger)
      return paths
    scale = scale or max(1, round(64 / images.shape[1]))
    image_grid.save_png(path, image_grid.grid(images, columns, scale))
  return [path]
