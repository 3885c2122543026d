"""`jaxvision prepare`: data sets downloaded, prepared and decoded once."""

import argparse

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.errors import UserError

_AT_HAND = ('digits', 'synthetic', 'folder')


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Prepares the named sets, or that of the config."""
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
