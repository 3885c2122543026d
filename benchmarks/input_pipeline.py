"""Images per second of the input pipelines, beside a torch DataLoader and tf.data.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --data=folder --workers=8
    python benchmarks/input_pipeline.py --data=folder --root=DIR

Two sets of data: `cifar`, 50,000 generated arrays of 32x32x3 in memory, and `folder`,
JPEG files of 500x375 pixels of photograph-like noise, or those of a folder of yours
(DIR/train/CLASS/*.jpg). Everything ends as a normalised float32 batch, shuffled and
flipped at random; for `cifar` cropped out of a border of four reflected pixels, for
`folder` a random resized crop (8% to 100% of the area) of 224x224 pixels.

  resident    ours: gather, augmentation, normalisation in one compiled program, alone.
              Its crops come out of images decoded to 224x224 before.
  streaming   ours: Grain decodes and crops in threads or worker processes; batches go to
              the device, and are flipped and normalised there.
  torch       `torch.utils.data.DataLoader` with 0, 1, ... worker processes, each a row
              of its own: Pillow decodes, crops, resizes and flips; uint8 tensors are
              collated, copied to the GPU where there is one, and normalised a batch at
              a time. It has no torchvision. The ratio is to its fastest row.
  tf.data     the same with TensorFlow's operations, `map` in parallel, then `batch`; it
              decodes only the part of a JPEG that the crop shows.

A peer that is not installed is a row that says so. Each pipeline is a process of its
own; they take turns, and a ratio is ours over the peer of the same round.
"""

import functools
import math
import os
import random
import resource
import statistics
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
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of random resized crops


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
    image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
    noisy = np.asarray(image, np.float32) + rng.normal(0, 8, (375, 500, 3))
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
  kind: str, root: str, cache: str, batch_size: int, workers: int, pipeline: str
) -> Iterator[Any]:
  """Yields augmented batches as our training step sees them."""
  import jax
  import jax.numpy as jnp

  from jaxvision import data
  from jaxvision.config import base_config
  from jaxvision.data import ArraySource, augment, resident, streaming
  from jaxvision.data.augment.resized_crop import Crop
  from jaxvision.training.mesh import make_mesh, over_batch, replicated
  from jaxvision.training.step import from_host

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
    config.data.cache_dir = cache
    config.augment.resized_crop, config.augment.resized_crop_ratio = SCALE, RATIO
    source = data.load(config.data).splits['train']
  mesh = make_mesh()
  transform = augment.make_augment(config.augment, (MEAN,) * 3, (STD,) * 3)
  key = jax.random.key(0)
  crop = Crop.of(config.augment)

  if pipeline == 'resident':
    split = resident.put(source, replicated(mesh))

    @jax.jit
    def make(split, step):
      (index,) = resident.train_indices(split, 0, step, batch_size)
      batch = resident.train_batch(split, index, step, 0, crop)
      return transform(jax.random.fold_in(key, step), batch['image']), batch['label']

    step = jnp.int32(0)
    while True:
      yield make(split, step)
      step = step + 1
  stream = streaming.train_stream(source, 0, batch_size, 2**24, workers, crop=crop)

  @jax.jit
  def augmented(step, images):
    return transform(jax.random.fold_in(key, step), images)

  try:
    for i, batch in enumerate(stream):
      placed = from_host(batch, over_batch(mesh))
      yield augmented(np.int32(i), placed['image']), placed['label']
  finally:
    stream.close()


class TorchSet:
  """A map-style data set for the DataLoader: augmented uint8 examples, labels.

  Images are [C, H, W] for `cifar` and [H, W, C] for `folder`, as they come.
  """

  def __init__(self, kind: str, root: str):
    self.kind = kind
    if kind == 'cifar':
      import torch
      import torch.nn.functional as F

      images, labels = cifar_arrays()
      images = torch.from_numpy(images).permute(0, 3, 1, 2).float()
      self.images = F.pad(images, (4, 4, 4, 4), mode='reflect').to(torch.uint8)
      self.labels = labels.tolist()
    else:
      self.paths, self.labels = folder_files(root)

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> tuple[Any, int]:
    import torch

    if self.kind == 'cifar':
      top, left = random.randrange(9), random.randrange(9)
      image = self.images[index, :, top : top + 32, left : left + 32]
      return image.flip(-1) if random.random() < 0.5 else image, self.labels[index]
    return torch.from_numpy(_cropped(self.paths[index])), self.labels[index]


def _cropped(path: str) -> np.ndarray:
  """Returns a random resized crop of a file, uint8 [SIZE, SIZE, 3], flipped or not."""
  from PIL import Image

  with Image.open(path) as file:
    left, top, width, height = _random_box(*file.size)
    shrink = min(width // SIZE, height // SIZE)
    if shrink >= 2:  # Pillow's cheaper decoding of a large picture
      full = file.size
      file.draft('RGB', (full[0] // shrink, full[1] // shrink))
      shrink = round(full[0] / file.size[0])
      left, top, width, height = (v / shrink for v in (left, top, width, height))
    image = file.convert('RGB')
  box = (left, top, left + width, top + height)
  image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
  if random.random() < 0.5:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.array(image)


def _random_box(width: int, height: int) -> tuple[int, int, int, int]:
  """Returns (left, top, width, height) as torchvision's RandomResizedCrop draws it."""
  for _ in range(10):
    area = width * height * random.uniform(*SCALE)
    ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      return random.randint(0, width - w), random.randint(0, height - h), w, h
  w = min(width, round(height * RATIO[1]))
  h = min(height, round(width / RATIO[0]))
  return (width - w) // 2, (height - h) // 2, w, h


def torch_batches(kind: str, root: str, batch_size: int, workers: int) -> Iterator[Any]:
  """Yields the batches of a DataLoader of some worker processes."""
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
      if gpu:
        images, labels = images.cuda(non_blocking=True), labels.cuda()
      if kind == 'folder':
        images = images.permute(0, 3, 1, 2)  # channels_last in memory
      yield images.float().mul_(1 / (255 * STD)).sub_(MEAN / STD), labels


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
      encoded = tf.io.read_file(image)
      begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(encoded),
        tf.zeros((1, 0, 4)),
        aspect_ratio_range=RATIO,
        area_range=SCALE,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
      )
      window = tf.concat([begin[:2], size[:2]], 0)
      image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
      image = tf.image.resize(image, (SIZE, SIZE))
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
    self._buffered = 2 * (max(settings['workers'], 0) + 2)
    self._batch_size = batch_size
    cache = settings.pop('cache')
    if name in ('resident', 'streaming'):
      settings['cache'] = cache
    self._batches = PIPELINES[name](batch_size=batch_size, **settings)
    for _ in range(3):
      self._wait(next(self._batches))
    return versions()

  def run(self, seconds: float) -> float:
    """Takes batches for some seconds and returns the images per second."""
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


def measure(kind: str, options: Any, root: str, cache: str) -> list[dict[str, Any]]:
  """Returns a row for each pipeline on one kind of data."""
  batch_size = options.batch_size or (128 if kind == 'cifar' else 32)
  settings = {'kind': kind, 'root': root, 'cache': cache, 'batch_size': batch_size}
  pythons = {'torch': options.torch_python, 'tf.data': options.tf_python}
  asked = [('streaming', options.workers)]
  asked += [('torch', int(n)) for n in options.torch_workers.split(',')]
  asked += [('resident', 0), ('tf.data', 0)]
  sides: dict[int, Side] = {}
  rows: list[dict[str, Any]] = []
  try:
    for i, (name, workers) in enumerate(asked):
      row = {'kind': kind, 'pipeline': name, 'workers': workers}
      rows.append(row | {'batch_size': batch_size})
      side = Side(Path(__file__).name, pythons.get(name, sys.executable), _AS_SIDE)
      try:
        facts = side.ask('prepare', name=name, workers=workers, **settings)
        rows[i]['versions'], sides[i] = facts, side
      except SideFailed as error:
        rows[i]['error'] = str(error)
        side.close()
    speeds: dict[int, list[float]] = {i: [] for i in sides}
    for _ in range(options.rounds):
      for i, side in sides.items():
        speeds[i].append(side.ask('run', seconds=options.seconds))
    for i, side in sides.items():
      rows[i]['images_per_second'] = spread(speeds[i])
      rows[i]['peak_memory_bytes'] = side.ask('peak_memory_bytes')
    for peer in ('torch', 'tf.data'):
      of_peer = [speeds[i] for i in sides if asked[i][0] == peer]
      if not of_peer:
        continue
      fastest = max(of_peer, key=statistics.median)
      for i in sides:
        if asked[i][0] in ('streaming', 'resident'):
          ratios = [a / b for a, b in zip(speeds[i], fastest)]
          rows[i][f'ratio_to_{peer}'] = spread(ratios)
  finally:
    for side in sides.values():
      side.close()
  return rows


_AS_SIDE = {'JAXVISION_BENCHMARK_SIDE': '1'}


def main() -> int:
  """Measures all pipelines on the kinds of data asked for."""
  arguments = parser(__doc__)
  arguments.add_argument('--data', default='cifar,folder', help='comma between them')
  arguments.add_argument('--batch-size', type=int, default=0, help='0: by the data')
  arguments.add_argument(
    '--workers', type=int, default=-1, help='of streaming; -1: as it chooses itself'
  )
  cores = os.cpu_count() or 1
  arguments.add_argument(
    '--torch-workers',
    default=','.join(map(str, sorted({0, max(cores - 1, 1), cores}))),
    help='numbers of worker processes to try, comma between them',
  )
  arguments.add_argument('--root', help='folder of JPEG files to take, not generated')
  arguments.add_argument('--files', type=int, default=400, help='JPEG files written')
  arguments.add_argument('--rounds', type=int, default=5)
  arguments.add_argument('--seconds', type=float, default=4.0, help='of a turn')
  arguments.add_argument('--torch-python', default=sys.executable, help='has torch')
  arguments.add_argument('--tf-python', default=sys.executable, help='has tensorflow')
  options = arguments.parse_args()
  kinds = options.data.split(',')
  if not set(kinds) <= {'cifar', 'folder'}:
    raise SystemExit(f'--data takes cifar and folder, not {options.data}')
  result = Result('input_pipeline', options.json)
  with tempfile.TemporaryDirectory() as scratch:
    root = options.root or str(Path(scratch) / 'generated')
    if 'folder' in kinds and not options.root:
      write_folder(Path(root), options.files)
    for kind in kinds:
      for row in measure(kind, options, root, str(Path(scratch) / 'cache')):
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
        row['workers'],
        speed.get('median') or row['error'],
        speed.get('min'),
        speed.get('max'),
        speed.get('n'),
        *ratios,
        None if memory is None else memory / 1e6,
      )
    )
  header = ('data', 'pipeline', 'workers', 'images/s', 'min', 'max', 'n')
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
