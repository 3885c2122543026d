"""Random resized crops in both pipelines: the same shares, also after a resume."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision.data import ArraySource, SubsetSource, load, resident, streaming
from jaxvision.data.augment.resized_crop import Crop, draw_crops, fit_boxes
from jaxvision.data.decode import decode_image
from jaxvision.data.order import seed_words

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

CROP, BATCH, STEPS, SEED = Crop((0.2, 1.0)), 4, 5, 7


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
  """A folder of smooth JPEG files of different sizes."""
  root = tmp_path_factory.mktemp('photographs')
  rng = np.random.default_rng(0)
  for i in range(9):
    folder = root / 'train' / 'ab'[i % 2]
    folder.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    size = (60 + 5 * i, 90 - 4 * i)
    coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f'{i}.jpg', quality=95)
  return root


def _train_split(root, tmp_path, **fields):
  fields = {'image_size': 24, 'pipeline': 'streaming', 'test_fraction': 0.3} | fields
  dataset = load('folder', root=str(root), cache_dir=str(tmp_path), **fields)
  return dataset.splits['train']


def _batches(source, workers=0, state=None, process=(0, 1)):
  stream = streaming.train_stream(
    source, SEED, BATCH, STEPS, workers, state, process, CROP
  )
  try:
    return list(stream)
  finally:
    stream.close()


def test_resident_and_streaming_show_the_same_part_of_the_same_example():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (10, 12, 16, 3), np.uint8)
  source = ArraySource(images, np.arange(10, dtype=np.int32))
  split = resident.put(source, jax.sharding.SingleDeviceSharding(jax.devices()[0]))

  @jax.jit
  def batch(split, seed, step):
    (index,) = resident.train_indices(split, seed, step, BATCH)
    return resident.train_batch(split, index, step, seed, CROP)

  streamed = _batches(SubsetSource(source, np.arange(10)))
  assert len(streamed) == STEPS
  for step, expected in enumerate(streamed):
    got = batch(split, seed_words(SEED), np.int32(step))
    assert set(got) == set(expected)
    for name in ('label', 'index', 'epoch'):
      np.testing.assert_array_equal(got[name], expected[name])
    assert got['image'].dtype == expected['image'].dtype == np.uint8
    difference = np.asarray(got['image'], int) - expected['image']
    assert np.abs(difference).max() <= 1  # of rounding
    assert not np.array_equal(expected['image'], images[expected['index']])
  with pytest.raises(ValueError, match='seed'):
    resident.train_batch(split, np.zeros(4, np.int32), np.int32(0), crop=CROP)


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_stream_draws_the_same_crops(photographs, tmp_path, workers):
  source = _train_split(photographs, tmp_path)
  expected = _batches(source)
  stream = streaming.train_stream(source, SEED, BATCH, STEPS, workers, crop=CROP)
  begun = [next(stream), next(stream)]
  state = stream.state()
  stream.close()
  got = begun + _batches(source, workers=5, state=state)
  assert len(got) == STEPS
  for ours, theirs in zip(got, expected):
    for name, value in theirs.items():
      assert ours[name].dtype == value.dtype
      np.testing.assert_array_equal(ours[name], value)


def test_crops_come_out_of_the_file_with_all_its_detail(photographs, tmp_path):
  source = _train_split(photographs, tmp_path)
  files = sorted(photographs.glob('train/*/*.jpg'))
  whole = {decode_image(path, (24, 24, 3)).tobytes(): path for path in files}
  positions = np.arange(STEPS * BATCH)
  draws = draw_crops(CROP, SEED, positions)
  batches = _batches(source)
  images = np.concatenate([batch['image'] for batch in batches])
  indices = np.concatenate([batch['index'] for batch in batches])
  for position, image, index in zip(positions, images, indices):
    with Image.open(whole[source[int(index)][0].tobytes()]) as picture:
      top, left, height, width = fit_boxes(
        CROP,
        type(draws)(*(values[position] for values in draws)),
        picture.height,
        picture.width,
      ).tolist()
      box = (left, top, left + width, top + height)
      expected = picture.resize((24, 24), Image.Resampling.BILINEAR, box)
    # A large crop may have been decoded at half the size.
    difference = np.abs(image.astype(int) - np.asarray(expected))
    if min(height, width) >= 48:
      assert difference.mean() < 4
    else:
      assert difference.max() <= 1  # of rounding


def test_hosts_share_the_crops_of_a_batch(photographs, tmp_path):
  source = _train_split(photographs, tmp_path)
  parts = [_batches(source, process=(i, 2)) for i in range(2)]
  for whole, *shares in zip(_batches(source), *parts):
    together = np.concatenate([share['image'] for share in shares])
    np.testing.assert_array_equal(together, whole['image'])


def test_evaluation_reads_every_example_once_as_the_source_has_it(
  photographs, tmp_path
):
  source = _train_split(photographs, tmp_path, crop_fraction=0.5)
  stream = streaming.eval_stream(source, 4, workers=1)
  batches = list(stream)
  stream.close()
  mask = np.concatenate([batch['mask'] for batch in batches])
  assert mask.tolist() == [True] * len(source) + [False] * (len(mask) - len(source))
  images = np.concatenate([batch['image'] for batch in batches])[mask]
  for i, image in enumerate(images):
    np.testing.assert_array_equal(image, source[i][0])
