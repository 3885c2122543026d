"""`jaxvision prepare`: data sets downloaded, prepared and decoded once."""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.data import cache
from jaxvision.errors import UserError

_AT_HAND = ('digits', 'synthetic', 'folder')


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Prepares the named sets, or that of the config."""
  if options.cached or options.drop:
    own = config or config_lib.override(config_lib.base_config(), options.overrides)
    return _cached(cache.directory(own.data.cache_dir), options.drop)
  names = options.inputs or ([config.data.name] if config else [])
  if not names:
    raise UserError(
      'prepare: name the TFDS sets, such as cifar10, or give --config=FILE'
    )
  if options.inputs and any(o.startswith('data.name=') for o in options.overrides):
    raise UserError('prepare: give NAMEs or --config.data.name, and not both')
  if config is None:
    config = config_lib.override(config_lib.base_config(), options.overrides)
  for name in names:
    config.data.name = name
    if name not in _AT_HAND:
      print(f'prepared: {data.prepare(name, config.data.dir)}', flush=True)
    dataset = data.load(config.data)
    sizes = ', '.join(f'{len(s):,} {split}' for split, s in dataset.splits.items())
    shape = 'x'.join(map(str, dataset.image_shape))
    print(
      f'decoded: {name}, {sizes}; {dataset.num_classes} classes, {shape}', flush=True
    )
  return 0


def _cached(root: Path, dropped: list[str]) -> int:
  """Deletes decoded sets, and prints those that are left."""
  for folder in dropped:
    cache.drop(root, folder)
  for copy in cache.copies(root):
    print(f'{copy.size / 2**20:10,.1f} MB  {copy.folder}  {copy.origin}')
  return 0
