"""Image classification sets of TensorFlow Datasets, read without TensorFlow.

A set is prepared once, in a child process (`prepare_tfds`), as array_record files,
which are read here by random access. A set named 'NAME', 'NAME/CONFIG', 'NAME:VERSION'
or 'NAME/CONFIG:VERSION' is stored in DIR/NAME[/CONFIG]/VERSION.
"""

import dataclasses
import functools
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision.data.dataset import Example
from jaxvision.data.decode import PLAIN, BoxOf, Resizing, UnreadableImage, decode_image
from jaxvision.data.sources.source import DatasetSource, Decoding, OpenedDataset
from jaxvision.errors import UserError, closest

_NAME = re.compile(
  r'(?P<name>[A-Za-z]\w*)(/(?P<config>[\w.+-]+))?(:(?P<version>[\d*]+(\.[\d*]+){2}))?'
)
_VERSION = re.compile(r'\d+\.\d+\.\d+')

_BATCH = 1024  # records whose labels are read at once

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class TfdsSource:
  """One split of a prepared set, decoded on access.

  Files are opened by the first access in each process; a pickled copy, for a worker,
  holds only the description.

  Attributes:
    directory: folder of the prepared set.
    split: name of the split in TFDS.
    length: number of examples.
    image_shape: (H, W, C) to decode to.
    known_labels: int32 [n], if they were read before.
    resizing: how images of another size are brought to `image_shape`.
  """

  directory: str
  split: str
  length: int
  image_shape: tuple[int, int, int]
  known_labels: np.ndarray | None = None
  resizing: Resizing = PLAIN
  _records: Any = dataclasses.field(default=None, repr=False)

  @property
  def labels(self) -> np.ndarray:
    if self.known_labels is None:
      labels = []
      for start in range(0, self.length, _BATCH):
        batch = range(start, min(start + _BATCH, self.length))
        labels += [record['label'] for record in self._read(batch)]
      self.known_labels = np.asarray(labels, np.int32)
    return self.known_labels

  def __len__(self) -> int:
    return self.length

  def __getitem__(self, index: int) -> Example:
    if not 0 <= index < self.length:
      raise IndexError(f'example {index} of {self.length}')
    return self.__getitems__([int(index)])[0]

  def __getitems__(self, indices: Sequence[int]) -> list[Example]:
    return [
      (self._decoded(i, record['image']), int(record['label']))
      for i, record in zip(indices, self._read(indices))
    ]

  def crops(self, indices: Sequence[int], boxes: Sequence[BoxOf]) -> list[Example]:
    """See `dataset.read_crops`."""
    return [
      (self._decoded(i, record['image'], box), int(record['label']))
      for i, box, record in zip(indices, boxes, self._read(indices))
    ]

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {'_records': None}

  def _decoded(self, index: int, image: bytes, box: BoxOf | None = None) -> np.ndarray:
    try:
      return decode_image(image, self.image_shape, *self.resizing, box)
    except UnreadableImage as error:
      raise UnreadableImage(f'{self._where(index)}: {error}') from error

  def _read(self, indices: Sequence[int]) -> Sequence[dict[str, Any]]:
    """Returns examples with their images still encoded."""
    if self._records is None:
      import tensorflow_datasets as tfds

      self._records = _builder(self.directory).as_data_source(
        split=self.split, decoders={'image': tfds.decode.SkipDecoding()}
      )
    try:
      return self._records.__getitems__(list(indices))
    # The reader raises errors of several kinds for truncated or missing files.
    except Exception as error:
      raise UserError(
        f'{self._where(indices[0])} cannot be read: {_one_line(error)}; prepare the '
        'set again'
      ) from error

  def _where(self, index: int) -> str:
    return f'record {index} of split "{self.split}" in {self.directory}'


def data_directory(configured: str) -> Path:
  """Returns data.dir, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return Path(configured or default).expanduser()


def locate(name: str, data_dir: str, decoding: Decoding, cache: Path) -> DatasetSource:
  """Looks for the prepared set `name` and returns how to cache and to open it.

  Args:
    name: 'cifar10', 'cifar10:3.0.2', 'NAME/CONFIG'.
    data_dir: TFDS directory; empty: its default.
    decoding: how the images are decoded.
    cache: directory of the decoded sets, which a message names where nothing is found.

  Raises:
    UserError: it is not a TFDS name; several configs are prepared and none is named.
  """
  parts = _parse(name)
  directory = _prepared(data_directory(data_dir), parts)
  key = '-'.join(filter(None, parts)).replace('*', 'x')
  # The same images as without: they are decoded and kept only once.
  side, channels = _stored_shape(directory, cache / key)
  if decoding.image_size == side:
    decoding = dataclasses.replace(decoding, image_size=0)
  if decoding.channels == channels:
    decoding = dataclasses.replace(decoding, channels=0)
  key += f'-{decoding.image_size}px' if decoding.image_size else ''
  key += f'-{decoding.channels}ch' if decoding.channels else ''
  key += '-readable' if decoding.skip_unreadable else ''
  key += decoding.resizing.key
  return DatasetSource(
    name=name,
    key=key,
    fingerprint=_fingerprint(directory) if directory else None,
    open=functools.partial(
      _open, name, data_dir, directory, cache=cache / key, decoding=decoding
    ),
  )


def _stored_shape(
  directory: Path | None, cached: Path
) -> tuple[int | None, int | None]:
  """Returns (side, channels) of the images of a set, the side where all have it."""
  if directory is None:
    shape = _read_json(cached / 'index.json').get('image_shape', ())
  else:
    node = _read_json(directory / 'features.json')
    for key in ('featuresDict', 'features', 'image', 'image', 'shape'):
      node = node.get(key) or {}
    shape = node.get('dimensions', ())
  if len(shape) != 3:
    return None, None
  sides = {int(side) for side in shape[:2] if str(side).isdigit()}
  channels = int(shape[2]) if str(shape[2]).isdigit() else 0
  return sides.pop() if len(sides) == 1 else None, channels or None


def prepare(name: str, data_dir: str = '') -> str:
  """Downloads and prepares a set as array_record, in a child process.

  Archives that are in DIR/downloads already are not downloaded again.

  Args:
    name: as in `locate`.
    data_dir: TFDS directory; empty: $TFDS_DATA_DIR, then TFDS's default.

  Returns:
    The folder of the prepared set, without any work if it is there already.

  Raises:
    UserError: one line: what failed, why, and what works offline.
  """
  return _prepare(name, data_dir, None)


class _Parts(NamedTuple):
  """The parts of 'NAME/CONFIG:VERSION'."""

  name: str
  config: str | None
  version: str | None


def _parse(name: str) -> _Parts:
  found = _NAME.fullmatch(name)
  if not found:
    near = closest(name, ['digits', 'folder', 'synthetic', *_known_names()])
    raise UserError(
      f'data.name "{name}" is neither digits, folder, synthetic nor a TFDS name '
      f'(NAME, NAME/CONFIG, NAME:VERSION){near}'
    )
  return _Parts(**found.groupdict())


def _prepared(data_dir: Path, parts: _Parts) -> Path | None:
  """Returns the folder of the newest prepared version that fits, or None."""
  name, config, version = parts
  base = data_dir / name
  if config:
    return _newest(base / config, version)
  if plain := _newest(base, version):
    return plain
  configs = {c.name: _newest(c, version) for c in _folders(base)}
  configs = {c: folder for c, folder in configs.items() if folder}
  if len(configs) > 1:
    default = _read_json(base / '.config' / 'metadata.json').get('default_config_name')
    if default not in configs:
      raise UserError(
        f'data set "{name}" is prepared in {base} in several configs: choose one with '
        f'data.name={name}/{min(configs)} (there are {", ".join(sorted(configs))})'
      )
    return configs[default]
  return next(iter(configs.values()), None)


def _newest(base: Path, version: str | None) -> Path | None:
  pattern = re.escape(version).replace(r'\*', r'\d+') if version else r'\d+\.\d+\.\d+'
  fitting = [
    folder
    for folder in _folders(base)
    if re.fullmatch(pattern, folder.name)
    and _VERSION.fullmatch(folder.name)
    and (folder / 'dataset_info.json').exists()
    and (folder / 'features.json').exists()
  ]
  key = lambda folder: tuple(map(int, folder.name.split('.')))  # noqa: E731
  return max(fitting, key=key, default=None)


def _folders(base: Path) -> list[Path]:
  try:
    return sorted(p for p in base.iterdir() if p.is_dir() and p.name[0] != '.')
  except OSError:
    return []


def _read_json(path: Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text('utf-8'))
  except (OSError, ValueError):
    return {}


def _fingerprint(directory: Path) -> str:
  """Returns the version and the name and size of every record file."""
  sizes = sorted(
    f'{p.name}={p.stat().st_size}' for p in directory.glob('*record*') if p.is_file()
  )
  return ' '.join([directory.name, *sizes])


def _builder(directory: str | Path) -> Any:
  import tensorflow_datasets as tfds

  return tfds.builder_from_directory(str(directory))


def _open(
  name: str,
  data_dir: str,
  directory: Path | None,
  image_shape: tuple[int, int, int] | None = None,
  labels: Mapping[str, np.ndarray] | None = None,
  *,
  cache: Path,
  decoding: Decoding,
) -> OpenedDataset:
  if directory is None:
    directory = Path(_prepare(name, data_dir, cache))
  file_format = _read_json(directory / 'dataset_info.json').get('fileFormat')
  if not any(directory.glob('*array_record*')):
    raise UserError(
      f'data set "{name}" in {directory} is prepared as {file_format or "?"}, which '
      'cannot be read without TensorFlow: remove that folder, or choose another '
      f'data.dir, and run `jaxvision prepare {name} --config.data.dir=DIR`, which '
      'writes array_record'
    )
  info = _builder(directory).info
  image = _image_feature(name, info.features)
  image_shape = image_shape or _shape(name, image.shape, decoding)
  pools, origin = {}, f'TFDS {name} {directory.name}'
  for pool, split in _splits(name, info, directory).items():
    known = (labels or {}).get(pool)
    count = info.splits[split].num_examples
    pools[pool] = TfdsSource(
      str(directory), split, count, image_shape, known, decoding.resizing
    )
    if labels is None:
      _check_labels(name, pools[pool])
    if split != pool:
      origin += f', {pool} = split "{split}"'
  return OpenedDataset(
    name=name,
    class_names=tuple(info.features['label'].names),
    image_shape=image_shape,
    pools=pools,
    origin=origin,
    fingerprint=_fingerprint(directory),
  )


def _check_labels(name: str, source: TfdsSource) -> None:
  """Raises UserError where examples are not labelled, which TFDS marks by -1."""
  missing = int((source.labels < 0).sum())
  if missing:
    which = (
      'no labels' if missing == len(source) else f'no label for {missing:,} images'
    )
    raise UserError(
      f'split "{source.split}" of data set "{name}" has {which} of {len(source):,}: '
      'classification needs one for each image, so choose another set or config of it'
    )


def _image_feature(name: str, features: Any) -> Any:
  """Returns the feature 'image', or raises UserError where the set has other ones."""
  import tensorflow_datasets as tfds

  named = isinstance(features, tfds.features.FeaturesDict)
  found = dict(features.items()) if named else {}
  image, label = found.get('image'), found.get('label')
  if (
    not isinstance(image, tfds.features.Image)
    or image.np_dtype != np.uint8
    or not isinstance(label, tfds.features.ClassLabel)
  ):
    raise UserError(
      f'data set "{name}" is not for image classification: it needs an 8-bit "image" '
      f'and a class "label", and has {", ".join(sorted(found)) or "neither"}'
    )
  return image


def _shape(
  name: str, stored: tuple[int | None, ...], decoding: Decoding
) -> tuple[int, int, int]:
  height, width, depth = stored
  if decoding.image_size:
    height = width = decoding.image_size
  if not height or not width:
    raise UserError(
      f'the images of data set "{name}" differ in size: set data.image_size to resize '
      'all of them to one size'
    )
  return height, width, decoding.channels or (1 if depth == 1 else 3)


def _splits(name: str, info: Any, directory: Path) -> dict[str, str]:
  """Returns pool -> TFDS split: 'train', and the first labelled of test, validation.

  A set with neither gives 'train' alone, and its test split is carved from that.
  """
  if 'train' not in info.splits:
    there = ', '.join(sorted(info.splits))
    raise UserError(f'data set "{name}" has no split "train" (it has {there})')
  chosen = {'train': 'train'}
  for split in ('test', 'validation'):
    count = info.splits[split].num_examples if split in info.splits else 0
    first = TfdsSource(str(directory), split, min(count, 10), (1, 1, 1))
    if count and first.labels.min() >= 0:  # TFDS marks a missing label by -1
      return chosen | {'test': split}
  return chosen


def _prepare(name: str, data_dir: str, cache: Path | None) -> str:
  """Prepares a set as `prepare` does; messages name the folder `cache` too."""
  parts = _parse(name)
  target = data_directory(data_dir)
  if found := _prepared(target, parts):
    return str(found)
  _log.info('preparing data set %s in %s', name, target)
  command = [
    sys.executable,
    '-m',
    'jaxvision.data.sources.prepare_tfds',
    name,
    str(target),
  ]
  child = subprocess.run(
    command, capture_output=True, text=True, errors='replace', check=False
  )
  try:
    result = json.loads(child.stdout.strip().splitlines()[-1])
  except (IndexError, ValueError):
    tail = (child.stderr.strip().splitlines() or ['no output'])[-1][:300]
    result = {'error': f'the process ended with status {child.returncode}: {tail}'}
  if 'path' in result:
    return result['path']
  if result.get('kind') == 'unknown':
    raise UserError(f'data set "{name}" is not in {target}, and {result["error"]}')
  known = _known_names()
  near = '' if parts.name in known else closest(parts.name, known)
  near = f' ({near[2:]})' if near else ''
  tried = f'is not in {target} (data.dir)'
  tried += f' nor cached in {cache}' if cache else ''
  base = target / parts.name
  raise UserError(
    f'data set "{name}"{near} {tried}, and downloading and preparing it there failed: '
    f'{result["error"]}; offline: run `pip install jaxvision[tfds]` and '
    f'`jaxvision prepare {name} --config.data.dir=DIR` on a machine with a network, or '
    f'here with the archives put into {target / "downloads"}, and copy DIR/'
    f'{parts.name} to {base}, or copy the cache folder of the set'
  )


def _known_names() -> list[str]:
  """Returns most names of TFDS, from the names of its files, without importing it."""
  spec = importlib.util.find_spec('tensorflow_datasets')
  if spec is None or not spec.submodule_search_locations:
    return []
  home = Path(next(iter(spec.submodule_search_locations)))
  files = [*home.glob('url_checksums/*.txt'), *home.glob('image_classification/*.py')]
  names = {p.stem for p in files} | {p.name for p in _folders(home / 'datasets')}
  return sorted(n for n in names if not n.startswith('_') and not n.endswith('_test'))


def _one_line(error: Exception) -> str:
  return ' '.join(str(error).split())[:200] or type(error).__name__
