"""`jaxvision explore`: what is in a data set, before anything trains on it."""

import argparse
import logging
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.data.dataset import Dataset
from jaxvision.data.info import DatasetInfo
from jaxvision.data.sources.folder import list_images
from jaxvision.data.sources.image_headers import read_headers
from jaxvision.errors import UserError, printable
from jaxvision.io import output_directory, writing
from jaxvision.reports.dataset import duplicates, exploration
from jaxvision.reports.dataset.augmented import augmented
from jaxvision.reports.dataset.duplicates import Signatures
from jaxvision.reports.dataset.exploration import Exploration
from jaxvision.training import runtime
from jaxvision.training.evaluation import data_notes
from jaxvision.training.mesh import local_mesh
from jaxvision.training.parts import resolve_parts
from jaxvision.training.run import Run

_AUGMENTED, _VERSIONS = 8, 8  # images, and of each

_log = logging.getLogger(__name__)


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Explores the data set of a config and prints what was found."""
  from jaxvision.reports.dataset.report import lines

  assert config is not None
  if options.images < 0:
    raise UserError(f'explore: --images must be at least 0, not {options.images}')
  explored, page = explore(config, options.output, options.images)
  print(*lines(explored), f'report: {page}', sep='\n')
  return 0


def explore(
  config: ConfigDict, output: str | Path | None = None, images: int = 0
) -> tuple[Exploration, Path]:
  """Explores the data set of a config and writes the pages of it; trains nothing.

  Args:
    config: whose data, augmentation and normalisation are looked at.
    output: directory for explore.html, .json and the pictures; None:
      exploration/<config name>.
    images: look at the pixels of so many images at most, over all splits, drawn at
      random; 0: of 100,000, or where they stream 20,000.

  Returns:
    (what was found, path of explore.html).

  Raises:
    UserError: the data are not there, or a field of the config does not suit them;
      `output` cannot be written.
  """
  from jaxvision.reports.dataset.report import write_exploration

  config = config_lib.freeze(config)
  target = output_directory(
    output or Path('exploration') / config.name, 'explore: --output'
  )
  runtime.start(config)
  parts = resolve_parts(config)
  dataset = data.load(config.data, source=parts.data)
  # How much a step takes has no bearing on what is in the data.
  single = config_lib.thaw(config)
  single.batch_size = single.grad_accumulation = single.gan.d_steps = 1
  run = Run.build(single, DatasetInfo.of(dataset), parts=parts, mesh=local_mesh())
  explored = _explored(run, dataset, images)
  with writing(target, 'explore: --output'):
    return explored, write_exploration(target, explored)


def _explored(run: Run, dataset: Dataset, images: int) -> Exploration:
  config = run.config
  classes = dataset.num_classes
  sources = {'train': dataset.splits['train'], **dataset.splits}
  sizes = {name: len(source) for name, source in sources.items()}
  default = exploration.SAMPLE
  if dataset.pipeline == 'streaming':
    default = exploration.STREAMED_SAMPLE
  rows = exploration.draw_from(sizes, images or default)
  # Told before minutes of work: it may say that the config does not suit the images.
  first = exploration.draw(sizes['train'], _AUGMENTED)
  changed = augmented(run.task, dataset, first, _VERSIONS)
  looked = sum(map(len, rows.values()))
  if looked > 20_000:
    _log.info('comparing %s images with each other', f'{looked:,}')
  splits, signed = [], []
  for name, source in sources.items():
    pixels = exploration.compute_pixel_statistics(
      source, rows[name], dataset.image_shape
    )
    signed.append(pixels.signatures)
    labels = np.asarray(source.labels)
    splits.append(
      exploration.split_statistics(
        name, labels, rows[name], pixels, dataset.image_shape, classes
      )
    )
  found = duplicates.find(Signatures.joined(signed))
  count = 8 if classes <= 25 else 6
  headers, files = None, {}
  if config.data.name == 'folder':
    headers = read_headers(list_images(config.data.root))
    files = {
      split: list(map(printable, found.names)) for split, found in dataset.files.items()
    }
  return Exploration(
    config_name=config.name,
    dataset=dataset,
    splits=tuple(splits),
    sampled=looked < sum(sizes.values()),
    samples=exploration.draw_samples(splits[0].labels, classes, count),
    duplicates=exploration.duplicate_report(splits, found),
    headers=headers,
    normalisation=run.task.normalization,
    augmented=changed,
    files=files,
    notes=tuple(_notes(config, dataset, looked, sum(sizes.values()))),
  )


def _notes(config: ConfigDict, dataset: Dataset, looked: int, count: int) -> list[str]:
  notes = data_notes(dataset)
  if looked < count:
    notes.append(
      f'Pixels and duplicates are of {looked:,} sampled images out of {count:,}; the '
      'classes are counted in all.'
    )
  if config.init.pretrained and not config.data.mean:
    notes.append(
      'The weights of init.pretrained may bring a normalisation of their own, which is '
      'not shown here.'
    )
  return notes
