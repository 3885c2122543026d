"""Data sets and wheels as files that travel to a machine without a network.

What `python benchmarks/gpu.py pack` writes, and what the battery reads. A set is packed out
of the decoded copy in the cache (`jaxvision.data.cache`) and becomes one there, so that
configs name it as ever. Its images are tiles of WebP sheets, lossless; NAME.npz has the labels
and the index, and lies in every part that has sheets of it:

    part1/cifar10.npz  part1/cifar10-train-00.webp ...  part1/wheels/*.whl
    part2/cifar10.npz  part2/cifar10-test-00.webp ...

No part is larger than asked for. The 60,000 images of CIFAR-10 take 97 MiB, as those of
CIFAR-100 do, and those of MNIST 10; PNG takes 124. Parts may come one after the other: a set
is there when all its sheets have come.

    python benchmarks/pack.py unpack PACK CACHE     # in a process of its own: it imports JAX
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What training imports and a machine with JAX, flax and optax may lack; all are small and
# pure Python. clu needs wrapt. Nothing of TFDS or grain is needed where the sets are
# cached and fit into memory.
WHEELS = ('clu', 'ml-collections', 'tensorboardX', 'tqdm', 'wrapt')

_COLUMNS, _ROWS = 50, 40  # tiles of a sheet
_MIB = 2**20


class Sheet(NamedTuple):
  """A file of images: its name and its bytes."""

  name: str
  content: bytes


def pack(
  names: Sequence[str], data_dir: str, output: Path, part_bytes: int, wheels: bool
) -> list[str]:
  """Packs data sets, and wheels, into `output`/part1, part2, ...

  Args:
    names: of TFDS sets, such as 'cifar10'.
    data_dir: TFDS's directory; empty: its default, or the cached copies alone.
    output: a folder that is not there yet, or is empty.
    part_bytes: that a part has at most.
    wheels: whether the wheels of `WHEELS` are downloaded into the first part.

  Returns:
    Lines that say what was packed.

  Raises:
    UserError: a set is not to be had, or is none of small images.
  """
  from jaxvision.errors import UserError

  if output.exists() and any(output.iterdir()):
    raise UserError(f'{output} is not empty: choose another --output, or remove it')
  lines, folder = [], output / 'part1'
  folder.mkdir(parents=True)
  (output / '.gitignore').write_text('*\n')  # data belong into no repository
  if wheels:
    lines.append(_download_wheels(folder / 'wheels'))
  used = sum(file.stat().st_size for file in folder.rglob('*.whl'))
  parts = [folder]
  for name in names:
    description, sheets = _encode(name, data_dir)
    size = len(description) + sum(len(sheet.content) for sheet in sheets)
    begun = len(parts)
    for i, sheet in enumerate(sheets):
      here = i == 0 or not (parts[-1] / f'{name}.npz').exists()
      wanted = len(sheet.content) + (len(description) if here else 0)
      if len(description) + len(sheet.content) > part_bytes:
        raise UserError(f'a sheet of {name} is larger than a part: raise --part-mib')
      if used + wanted > part_bytes:
        parts.append(output / f'part{len(parts) + 1}')
        parts[-1].mkdir()
        used, here = 0, True
      if here:
        (parts[-1] / f'{name}.npz').write_bytes(description)
        used += len(description)
      (parts[-1] / sheet.name).write_bytes(sheet.content)
      used += len(sheet.content)
    spans = len(parts) - begun + 1
    where = f'in part{len(parts)}' if spans == 1 else f'over {spans} parts'
    lines.append(f'{name}: {size / _MIB:.1f} MiB, {where}')
  if len(parts) > 1:
    lines.append(
      f'{part_bytes / _MIB:.0f} MiB do not hold all of it: {len(parts)} parts, which '
      'may travel one after the other'
    )
  return lines


def _encode(name: str, data_dir: str) -> tuple[bytes, list[Sheet]]:
  """Returns the description of a set, and its sheets."""
  from jaxvision import data
  from jaxvision.data import cache
  from jaxvision.errors import UserError

  root = cache.directory('')
  data.load(name, dir=data_dir, pipeline='resident')
  cached = cache.read(root / name, name, None, with_images=True)
  if cached is None or cached.skipped != dict.fromkeys(cached.labels, 0):
    raise UserError(f'{name} cannot be packed: name a set of TFDS without its version')
  if cached.image_shape[2] not in (1, 3):
    raise UserError(f'{name} has {cached.image_shape[2]} channels, and WebP has 1 or 3')
  pieces = [
    (f'{name}-{pool}-{i:02}.webp', images[first : first + _COLUMNS * _ROWS])
    for pool, images in cached.images.items()
    for i, first in enumerate(range(0, len(images), _COLUMNS * _ROWS))
  ]
  with ThreadPoolExecutor() as pool_of_threads:
    contents = list(pool_of_threads.map(encode_sheet, (images for _, images in pieces)))
  sheets = [Sheet(file, content) for (file, _), content in zip(pieces, contents)]
  known = json.loads((root / name / cache.INDEX).read_text('utf-8'))
  facts = {
    **{key: known[key] for key in ('name', 'origin', 'image_shape', 'fingerprint')},
    'classes': known['classes'],
    'sheets': {s.name: hashlib.sha256(s.content).hexdigest() for s in sheets},
  }
  labels = {f'{pool}_labels': array for pool, array in cached.labels.items()}
  buffer = io.BytesIO()
  arrays: dict[str, Any] = {'facts': np.array(json.dumps(facts)), **labels}
  np.savez_compressed(buffer, **arrays)
  return buffer.getvalue(), sheets


def encode_sheet(images: np.ndarray) -> bytes:
  """Returns uint8 [n, H, W, C] as one lossless WebP, 50 tiles in a row."""
  from PIL import Image

  count, height, width = images.shape[:3]
  rows = -(-count // _COLUMNS)
  tiles = np.zeros((rows * _COLUMNS, height, width, 3), np.uint8)
  tiles[:count] = images  # grey images three times, which costs nothing in WebP
  tiles = tiles.reshape(rows, _COLUMNS, height, width, 3).swapaxes(1, 2)
  sheet = Image.fromarray(tiles.reshape(rows * height, _COLUMNS * width, 3))
  buffer = io.BytesIO()
  # A slower search makes it one part in a hundred smaller.
  sheet.save(buffer, 'webp', lossless=True, quality=75, method=4)
  return buffer.getvalue()


def decode_sheet(content: bytes, count: int, shape: tuple[int, int, int]) -> np.ndarray:
  """Returns the first `count` images of a sheet, uint8 [count, H, W, C]."""
  from PIL import Image

  height, width, channels = shape
  sheet = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
  rows, columns = sheet.shape[0] // height, sheet.shape[1] // width
  tiles = sheet.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
  return tiles.reshape(-1, height, width, 3)[:count, ..., :channels]


def unpack(folder: Path, root: Path) -> list[str]:
  """Makes decoded copies in a cache of all sets whose sheets have come.

  Sheets of a set that is not whole yet are kept beside, for the next part.

  Args:
    folder: of a pack, or of one or several of its parts.
    root: of the cache.

  Returns:
    A line for each set that was unpacked, or still lacks sheets.

  Raises:
    UserError: a file is damaged.
  """
  from jaxvision.data import cache
  from jaxvision.errors import UserError

  lines = []
  descriptions = {path.stem: path for path in sorted(folder.rglob('*.npz'))}
  for name, path in descriptions.items():
    if cache.read(root / name, name, None, with_images=True, tell=False):
      continue
    facts, labels = _description(path)
    store = root / 'unpacked' / name
    store.mkdir(parents=True, exist_ok=True)
    for file, digest in facts['sheets'].items():
      for found in folder.rglob(file):
        content = found.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
          raise UserError(f'{found} is damaged: copy it again')
        (store / file).write_bytes(content)
    there = {file for file in facts['sheets'] if (store / file).is_file()}
    if missing := len(facts['sheets']) - len(there):
      lines.append(
        f'{name}: {missing} of {len(facts["sheets"])} files are still to come'
      )
      continue
    _write(root / name, facts, labels, store)
    shutil.rmtree(store)
    lines.append(f'{name}: unpacked')
  return lines


def _description(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  with np.load(path, allow_pickle=False) as file:
    labels = {
      key.removesuffix('_labels'): file[key] for key in file.files if key != 'facts'
    }
    return json.loads(str(file['facts'])), labels


def _write(
  target: Path, facts: Mapping[str, Any], labels: Mapping[str, np.ndarray], store: Path
) -> None:
  """Writes a set into the cache, by what writes all sets there."""
  from jaxvision.data import ArraySource, cache
  from jaxvision.data.sources.source import OpenedDataset

  shape = tuple(facts['image_shape'])
  pools = {}
  for pool, of_pool in labels.items():
    images, first = np.empty((len(of_pool), *shape), np.uint8), 0
    for file in (file for file in facts['sheets'] if f'-{pool}-' in file):
      count = min(_COLUMNS * _ROWS, len(of_pool) - first)
      images[first : first + count] = decode_sheet(
        (store / file).read_bytes(), count, shape
      )
      first += count
    pools[pool] = ArraySource(images, of_pool)
  opened = OpenedDataset(
    name=facts['name'],
    class_names=tuple(facts['classes']),
    image_shape=shape,
    pools=pools,
    origin=facts['origin'],
    fingerprint=facts['fingerprint'],
  )
  cache.write(target, opened, with_images=True)


def _download_wheels(folder: Path) -> str:
  """Downloads `WHEELS` in the versions that are installed here; returns a line."""
  from jaxvision.errors import UserError

  wanted = [f'{name}=={metadata.version(name)}' for name in WHEELS]
  options = (
    '--no-deps --only-binary=:all: --platform=any --implementation=py --abi=none'
  )
  command = [
    *(
      sys.executable,
      '-m',
      'pip',
      'download',
      '--quiet',
      '--disable-pip-version-check',
    ),
    *options.split(),
    *('--dest', str(folder), *wanted),
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    why = (done.stderr.strip().splitlines() or ['pip said nothing'])[-1]
    raise UserError(f'the wheels cannot be downloaded: {why}')
  files = sorted(folder.glob('*.whl'))
  size = sum(file.stat().st_size for file in files) / _MIB
  return f'wheels: {size:.1f} MiB, {", ".join(wanted)}'


def missing_wheels(folder: Path) -> Iterator[Path]:
  """Yields the wheels of a pack whose packages are not installed here."""
  for wheel in sorted(folder.rglob('*.whl')):
    try:
      metadata.version(wheel.name.split('-')[0])
    except metadata.PackageNotFoundError:
      yield wheel


def install_wheels(folder: Path, site: Path) -> list[str]:
  """Unzips the wheels of a pack that are not installed here into `site`, for PYTHONPATH.

  Returns:
    The names of their files.
  """
  unzipped = []
  for wheel in missing_wheels(folder):
    with zipfile.ZipFile(wheel) as file:
      file.extractall(site)
    unzipped.append(wheel.name)
  return unzipped


def make_up(root: Path, sizes: Mapping[str, int]) -> None:
  """Writes made-up sets into a cache, for rehearsals.

  Args:
    root: of the cache.
    sizes: names of sets -> their classes; of each there are three images to train on and
      two to test with, 32x32x3.
  """
  from jaxvision.data import ArraySource, cache
  from jaxvision.data.sources.source import OpenedDataset

  rng = np.random.default_rng(0)
  for name, classes in sizes.items():
    pools = {}
    for pool, each in (('train', 3), ('test', 2)):
      labels = np.tile(np.arange(classes, dtype=np.int32), each)
      images = rng.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
      pools[pool] = ArraySource(images, labels)
    opened = OpenedDataset(
      name=name,
      class_names=tuple(f'{i:03}' for i in range(classes)),
      image_shape=(32, 32, 3),
      pools=pools,
      origin=f'made-up images in the place of {name}',
      synthetic=True,
    )
    cache.write(root / name, opened, with_images=True)


def main(arguments: Sequence[str]) -> int:
  """Unpacks, or makes up sets: see the docstring. Returns the exit code."""
  from jaxvision.errors import UserError

  action, *rest = arguments
  try:
    if action == 'unpack':
      for line in unpack(*map(Path, rest)):
        print(line, flush=True)
    elif action == 'make-up':
      make_up(Path(rest[0]), {'cifar10': 10, 'cifar100': 100})
    else:
      raise SystemExit(__doc__)
  except UserError as error:
    print(f'pack: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
