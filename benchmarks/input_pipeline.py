"""Images per second of the input pipelines, beside a torch DataLoader and tf.data.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --data=folder --workers=8

Two sets of data, generated: `cifar`, 50,000 arrays of 32x32x3 in memory, and `folder`,
JPEG files of photograph-like noise, some 256 pixels a side, decoded, scaled and cropped
to 224. Everything ends as a normalised float32 batch, shuffled, flipped at random, and
for `cifar` cropped out of a border of four reflected pixels.

  resident    ours: gather, augmentation, normalisation in one compiled program, alone.
  streaming   ours: Grain with worker processes, batches to the device, augmented there.
  torch       `torch.utils.data.DataLoader`: each example augmented by torch's operations
              in the workers, collated, copied to the GPU where there is one. It decodes
              with Pillow, and has no torchvision.
  tf.data     the same with TensorFlow's operations, `map` in parallel, then `batch`.

A peer that is not installed is a row that says so. Each pipeline is a process of its
own; they take turns, and a ratio is ours over the peer of the same round.
"""

import functools
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, SideFailed, serve, spread
from table import Result, parser, table, versions

MEAN, STD = 0.5, 0.25
CIFAR_IMAGES = 50_000
FOLDER_CLASSES = 4
SIZE = 224  # of the images out of the folder


def cifar_arrays() -> tuple[np.ndarray, np.ndarray]:
  """Returns random images uint8 [n, 32, 32, 3] and labels int64 [n]."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (CIFAR_IMAGES, 32, 32, 3), np.uint8)
  return images, rng.integers(0, 10, CIFAR_IMAGES)


def write_folder(root: Path, count: int) -> None:
  """Writes `count` JPEG files into root/train/CLASS, of the entropy of photographs."""
  from PIL import Image

  rng = np.random.default_rng(0)
  for i in range(count):
    coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
    image = Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC)
    noisy = np.asarray(image, np.float32) + rng.normal(0, 8, (256, 341, 3))
    folder = root / 'train' / f'class{i % FOLDER_CLASSES}'
    folder.mkdir(parents=True, exist_ok=True)
    pixels = noisy.clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f'{i:05}.jpg', quality=90)


def folder_files(root: str) -> tuple[list[str], list[int]]:
  """Returns the files and labels below root/train."""
  paths = sorted(Path(root).glob('train/*/*.jpg'))
  classes = sorted({path.parent.name for path in paths})
  return list(map(str, paths)), [classes.index(path.parent.name) for path in paths]


def ours_batches(
  kind: str, root: str, batch_size: int, workers: int, pipeline: str
) -> Iterator[Any]:
  """Yields augmented batches as our training step sees them."""
  import jax
  import jax.numpy as jnp

  from jaxvision import data
  from jaxvision.config import base_config
  from jaxvision.data import ArraySource, augment, resident, streaming
  from jaxvision.engine.mesh import make_mesh, over_batch, replicated
  from jaxvision.engine.programs import from_host

  config = base_config()
  config.augment.flip = True
  if kind == 'cifar':
    images, labels = cifar_arrays()
    source: Any = ArraySource(images, labels.astype(np.int32))
    config.augment.crop_padding = 4
  else:
    config.data.name, config.data.root = 'folder', root
    config.data.image_size, config.data.pipeline = SIZE, pipeline
    config.data.mean, config.data.std = (MEAN,) * 3, (STD,) * 3
    config.data.cache_dir = str(Path(root) / 'cache')
    source = data.load(config.data).splits['train']
  mesh = make_mesh()
  transform = augment.make_augment(config.augment, (MEAN,) * 3, (STD,) * 3)
  key = jax.random.key(0)

  if pipeline == 'resident':
    split = resident.put(source, replicated(mesh))

    @jax.jit
    def make(split, step):
      (index,) = resident.train_indices(split, 0, step, batch_size)
      batch = resident.take(split, index)
      return transform(jax.random.fold_in(key, step), batch['image']), batch['label']

    step = jnp.int32(0)
    while True:
      yield make(split, step)
      step = step + 1
  stream = streaming.train_stream(source, 0, batch_size, 2**24, workers)
  transform = jax.jit(transform)
  try:
    for i, batch in enumerate(stream):
      placed = from_host(batch, over_batch(mesh))
      yield transform(jax.random.fold_in(key, i), placed['image']), placed['label']
  finally:
    stream.close()


class TorchSet:
  """A map-style data set for the DataLoader: augmented, normalised examples."""

  def __init__(self, kind: str, root: str):
    self.kind = kind
    if kind == 'cifar':
      import torch

      images, labels = cifar_arrays()
      self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
      self.labels = labels.tolist()
    else:
      self.paths, self.labels = folder_files(root)

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> tuple[Any, int]:
    import torch
    import torch.nn.functional as F

    if self.kind == 'cifar':
      image = self.images[index].float()
      image = F.pad(image[None], (4, 4, 4, 4), mode='reflect')[0]
      top, left = torch.randint(0, 9, (2,)).tolist()
      image = image[:, top : top + 32, left : left + 32]
    else:
      image = torch.from_numpy(_decoded(self.paths[index])).permute(2, 0, 1).float()
    if torch.rand(()) < 0.5:
      image = image.flip(-1)
    return image.div(255).sub(MEAN).div(STD), self.labels[index]


def _decoded(path: str) -> np.ndarray:
  """Returns a file as uint8 [SIZE, SIZE, 3]: shorter side scaled, centre cut out."""
  from PIL import Image

  with Image.open(path) as file:
    file.draft('RGB', (SIZE, SIZE))
    image = file.convert('RGB')
  scale = SIZE / min(image.size)
  width, height = (max(SIZE, round(side * scale)) for side in image.size)
  image = image.resize((width, height), Image.Resampling.BILINEAR)
  left, top = (width - SIZE) // 2, (height - SIZE) // 2
  return np.array(image.crop((left, top, left + SIZE, top + SIZE)))


def torch_batches(kind: str, root: str, batch_size: int, workers: int) -> Iterator[Any]:
  """Yields the batches of a DataLoader with as many workers as ours has."""
  import torch

  gpu = torch.cuda.is_available()
  loader = torch.utils.data.DataLoader(
    TorchSet(kind, root),
    batch_size,
    shuffle=True,
    drop_last=True,
    num_workers=workers,
    persistent_workers=workers > 0,
    pin_memory=gpu,
  )
  while True:
    for images, labels in loader:
      yield (images.cuda(non_blocking=True), labels.cuda()) if gpu else (images, labels)


def tf_batches(kind: str, root: str, batch_size: int, workers: int) -> Iterator[Any]:
  """Yields the batches of tf.data; its threads are as many as it finds best."""
  del workers
  import tensorflow as tf

  if kind == 'cifar':
    arrays = cifar_arrays()
    dataset = tf.data.Dataset.from_tensor_slices(arrays).shuffle(CIFAR_IMAGES)
  else:
    paths, labels = folder_files(root)
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths))

  def example(image, label):
    if kind == 'cifar':
      image = tf.pad(image, [[4, 4], [4, 4], [0, 0]], 'REFLECT')
      image = tf.cast(tf.image.random_crop(image, (32, 32, 3)), tf.float32)
    else:
      image = tf.io.decode_jpeg(tf.io.read_file(image), channels=3)
      sides = tf.cast(tf.shape(image)[:2], tf.float32)
      sides = tf.cast(tf.round(sides * SIZE / tf.reduce_min(sides)), tf.int32)
      image = tf.image.resize(image, sides)
      image = tf.image.resize_with_crop_or_pad(image, SIZE, SIZE)
    image = tf.image.random_flip_left_right(image)
    return (image / 255 - MEAN) / STD, label

  dataset = dataset.repeat().map(example, tf.data.AUTOTUNE)
  return iter(dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


PIPELINES: dict[str, Callable[..., Iterator[Any]]] = {
  'resident': functools.partial(ours_batches, pipeline='resident'),
  'streaming': functools.partial(ours_batches, pipeline='streaming'),
  'torch': torch_batches,
  'tf.data': tf_batches,
}


class _Requests:
  """What the parent may ask of a process that runs one pipeline."""

  def __init__(self):
    self._batches: Iterator[Any] = iter(())

  def close(self) -> None:
    """Ends the worker processes while the interpreter is whole."""
    getattr(self._batches, 'close', lambda: None)()

  def prepare(self, name: str, batch_size: int, **settings: Any) -> dict[str, str]:
    """Opens the pipeline and takes some batches."""
    self._wait: Callable[[Any], Any] = lambda batch: None
    if name in ('resident', 'streaming'):
      import jax

      self._wait = jax.block_until_ready
    elif name == 'torch':
      import torch

      if torch.cuda.is_available():
        self._wait = lambda batch: torch.cuda.synchronize()
    # What a pipeline made while it was not its turn does not count.
    self._buffered = 2 * (settings['workers'] + 1)
    self._batch_size = batch_size
    self._batches = PIPELINES[name](batch_size=batch_size, **settings)
    for _ in range(3):
      self._wait(next(self._batches))
    return versions()

  def run(self, seconds: float) -> float:
    """Takes batches for so many seconds and returns the images per second."""
    for _ in range(self._buffered):
      self._wait(next(self._batches))
    begun, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begun < seconds:
      self._wait(next(self._batches))
      count += 1
    return count * self._batch_size / (time.perf_counter() - begun)

  def peak_memory_bytes(self) -> int:
    """Returns the most memory of this process and of its largest worker, together."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def measure(kind: str, options: Any, root: str) -> list[dict[str, Any]]:
  """Returns a row for each pipeline on one kind of data."""
  batch_size = options.batch_size or (128 if kind == 'cifar' else 32)
  settings = {
    'kind': kind,
    'root': root,
    'batch_size': batch_size,
    'workers': options.workers,
  }
  pythons = {'torch': options.torch_python, 'tf.data': options.tf_python}
  sides: dict[str, Side] = {}
  rows = {name: {**settings, 'pipeline': name, 'root': None} for name in PIPELINES}
  try:
    for name in PIPELINES:
      side = Side(Path(__file__).name, pythons.get(name, sys.executable), _AS_SIDE)
      try:
        rows[name]['versions'] = side.ask('prepare', name=name, **settings)
        sides[name] = side
      except SideFailed as error:
        rows[name]['error'] = str(error)
        side.close()
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
      for name, side in sides.items():
        speeds[name].append(side.ask('run', seconds=options.seconds))
    for name, side in sides.items():
      rows[name]['images_per_second'] = spread(speeds[name])
      rows[name]['peak_memory_bytes'] = side.ask('peak_memory_bytes')
      for peer in ('torch', 'tf.data'):
        if peer in sides and name in ('resident', 'streaming'):
          ratios = [a / b for a, b in zip(speeds[name], speeds[peer])]
          rows[name][f'ratio_to_{peer}'] = spread(ratios)
  finally:
    for side in sides.values():
      side.close()
  return list(rows.values())


_AS_SIDE = {'JAXVISION_BENCHMARK_SIDE': '1'}


def main() -> int:
  """Measures all pipelines on the kinds of data asked for."""
  arguments = parser(__doc__)
  arguments.add_argument('--data', default='cifar,folder', help='comma between them')
  arguments.add_argument('--batch-size', type=int, default=0, help='0: by the data')
  arguments.add_argument(
    '--workers',
    type=int,
    default=max(1, (os.cpu_count() or 2) - 1),
    help='processes of streaming and of the DataLoader',
  )
  arguments.add_argument('--files', type=int, default=400, help='JPEG files written')
  arguments.add_argument('--rounds', type=int, default=5)
  arguments.add_argument('--seconds', type=float, default=4.0, help='of a turn')
  arguments.add_argument('--torch-python', default=sys.executable, help='has torch')
  arguments.add_argument('--tf-python', default=sys.executable, help='has tensorflow')
  options = arguments.parse_args()
  kinds = options.data.split(',')
  if not set(kinds) <= {'cifar', 'folder'}:
    raise SystemExit(f'--data takes cifar and folder, not {options.data}')
  result = Result('input_pipeline', options.json, workers=options.workers)
  with tempfile.TemporaryDirectory() as root:
    if 'folder' in kinds:
      write_folder(Path(root), options.files)
    for kind in kinds:
      for row in measure(kind, options, root):
        result.add(row)
  cells = []
  for row in result.rows:
    speed = row.get('images_per_second', {})
    ratios = [
      row.get(f'ratio_to_{peer}', {}).get('median') for peer in ('torch', 'tf.data')
    ]
    memory = row.get('peak_memory_bytes')
    cells.append(
      (
        row['kind'],
        row['pipeline'],
        speed.get('median') or row['error'],
        speed.get('min'),
        speed.get('max'),
        speed.get('n'),
        *ratios,
        None if memory is None else memory / 1e6,
      )
    )
  header = ('data', 'pipeline', 'images/s', 'min', 'max', 'n')
  print(table((*header, 'ratio to torch', 'ratio to tf.data', 'memory, MB'), cells))
  return 0


if __name__ == '__main__':
  if os.environ.get('JAXVISION_BENCHMARK_SIDE'):
    requests = _Requests()
    serve(
      {
        name: getattr(requests, name)
        for name in ('prepare', 'run', 'peak_memory_bytes')
      }
    )
    requests.close()
  else:
    sys.exit(main())
