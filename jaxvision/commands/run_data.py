"""The data of a run, for the commands that measure on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data as data_lib
from jaxvision.data.dataset import Dataset, Source, read_many, with_classes
from jaxvision.data.splitting import WHOLE
from jaxvision.errors import UserError
from jaxvision.training import pretrained
from jaxvision.training.parts import resolve_recorded
from jaxvision.training.run_directory import RunDirectory


def data_of_run(workdir: str | Path, overrides: Sequence[str] = ()) -> Dataset:
  """Returns the data that a run trained on, with its splits.

  Args:
    workdir: of the run.
    overrides: 'data.dir=DIR' and the like: where the data are now.

  Raises:
    UserError: they are not there, or no longer the same.
  """
  directory = RunDirectory(workdir)
  config = directory.config()
  parts = resolve_recorded(directory, config)
  if not directory.trained_on().named and parts.data is None:
    raise UserError(
      f'{directory.path} was trained on arrays that were passed from Python, which are '
      'not in the run directory'
    )
  where = config_lib.override(config, tuple(overrides))
  if origin := directory.pretrained():
    facts = pretrained.WeightsSource.from_dict(origin).facts
    where = pretrained.adopt(where, facts)
  dataset = load_own_data(directory, where, parts.data, may_be_other=False)
  assert dataset is not None
  return dataset


def test_or_train(data: Dataset) -> tuple[str, Source]:
  """Returns the name and the images of the test split, of training where there is none."""
  name = 'test' if len(data.splits.get('test', ())) else 'train'
  return name, data.splits[name]


def read(source: Source, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns images of a split, uint8 [n, H, W, C], and their labels [n, ...].

  Args:
    source: the split.
    indices: int [n]; they are read in ascending order.
  """
  images, labels = zip(*read_many(source, np.sort(indices).tolist()))
  return np.stack(images), np.stack(labels)


def drawn(source: Source, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns images of a split drawn at random without repetition, see `read`.

  Args:
    source: the split.
    count: how many; all where there are fewer.
    seed: of the choice.
  """
  return read(source, np.random.default_rng(seed).permutation(len(source))[:count])


def load_own_data(
  directory: RunDirectory, config: ConfigDict, source: Any, *, may_be_other: bool
) -> Dataset | None:
  """Returns the data of a run, wherever they are now, with its splits.

  Args:
    directory: of the run.
    config: says where the data are.
    source: data of the user's own, or None.
    may_be_other: whether they may be other data than the run's.

  Returns:
    The data set; None where it is other data than the run's, and may be.

  Raises:
    UserError: they are not there, or not those that the run trained on.
  """
  rule = directory.trained_on().split_rule
  try:
    dataset = data_lib.load(config.data, source=source, split_rule=rule)
  except UserError:
    if may_be_other:  # a folder of one class can be measured, though not trained on
      return None
    raise
  different = directory.data_difference(dataset)
  if different and not may_be_other:
    raise UserError(
      f'eval: the run in {directory.path} trained on other data than {dataset.name} is '
      f'now ({different}): restore the data, or name others with --config.data.root=DIR'
    )
  return None if different else dataset


def load_other_data(
  directory: RunDirectory, config: ConfigDict, source: Any
) -> Dataset:
  """Returns data that a run did not train on, with the class numbers of the run.

  All of a set that has no test split counts as one.

  Raises:
    UserError: the set is not there, or its images or classes are of another kind.
  """
  dataset = data_lib.load(config.data, source=source, split_rule=WHOLE)
  known, name = directory.trained_on(), dataset.origin or dataset.name
  if tuple(dataset.image_shape) != known.image_shape:
    raise UserError(
      f'eval: {name} has images of {tuple(dataset.image_shape)}, the run in '
      f'{directory.path} takes {known.image_shape}: set data.image_size and '
      'data.channels'
    )
  if dataset.label_kind != known.label_kind or (
    known.label_kind != 'class' and dataset.class_names != known.class_names
  ):
    raise UserError(
      f'eval: {name} has other labels than the run in {directory.path} was trained on'
    )
  return with_classes(dataset, known.class_names)
