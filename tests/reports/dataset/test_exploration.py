"""Statistics against plain NumPy, duplicates against looking at every pair."""

import dataclasses
import io
import json

import chex
import numpy as np
import pytest
from PIL import Image

import jaxvision
from jaxvision.config import base_config, override
from jaxvision.data import ArraySource, load
from jaxvision.data.info import DatasetInfo
from jaxvision.data.sources.image_headers import Headers
from jaxvision.reports.dataset import duplicates, exploration, report
from jaxvision.reports.dataset.augmented import augmented
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run


def pictures(count, shape=(32, 32, 3), seed=0):
  """Distinct images with detail at every scale, as photographs have."""
  rng = np.random.default_rng(seed)
  height, width, channels = shape
  total = np.zeros((count, *shape))
  for size in (2, 4, 8, 16, 32):
    # Fine detail is of brightness, coarse of colour too: JPEG keeps no other.
    depth = channels if size < 8 else 1
    coarse = rng.uniform(-1, 1, (count, size, size, depth)).astype(np.float32)
    rows = np.arange(height) * size // height
    columns = np.arange(width) * size // width
    total += coarse[:, rows][:, :, columns] * (1.5 if size < 8 else 1)
  return (128 + 28 * total).clip(0, 255).astype(np.uint8)


def recompressed(image, quality=60):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'JPEG', quality=quality)
  return np.asarray(Image.open(buffer))


@pytest.mark.parametrize('shape', [(8, 8, 1), (12, 20, 3)])
def test_statistics_are_those_of_all_pixels(shape):
  rng = np.random.default_rng(1)
  images = rng.integers(0, 200, (50, *shape), dtype=np.uint8)
  labels = rng.integers(0, 3, 50).astype(np.int32)
  rows = np.arange(0, 50, 2)
  pixels = exploration.compute_pixel_statistics(
    ArraySource(images, labels), rows, shape, chunk=7
  )
  split = exploration.split_statistics('train', labels, rows, pixels, shape, 4)
  looked = images[rows] / 255
  chex.assert_trees_all_close(np.array(split.mean), looked.mean((0, 1, 2)), atol=1e-6)
  chex.assert_trees_all_close(np.array(split.std), looked.std((0, 1, 2)), atol=1e-6)
  assert split.counts.tolist() == [int((labels == k).sum()) for k in range(4)]
  assert split.counts.sum() == split.examples == 50
  assert split.missing.tolist() == [3]
  assert split.imbalance == float('inf')
  chex.assert_shape(split.histogram, (shape[-1], 256))
  for channel in range(shape[-1]):
    expected = np.histogram(images[rows][..., channel], np.arange(257))[0]
    chex.assert_trees_all_equal(split.histogram[channel], expected)


def test_a_channel_of_one_level_has_no_deviation():
  images = np.full((3, 4, 4, 1), 7, np.uint8)
  pixels = exploration.compute_pixel_statistics(
    ArraySource(images, np.zeros(3, np.int32)), np.arange(3), (4, 4, 1)
  )
  split = exploration.split_statistics(
    'train', np.zeros(3, np.int32), np.arange(3), pixels, (4, 4, 1), 1
  )
  assert split.std == (0.0,)


def test_chunks_change_nothing():
  images = np.concatenate([pictures(40), pictures(40)[:5]])
  source = ArraySource(images, np.zeros(45, np.int32))
  whole, *others = (
    exploration.compute_pixel_statistics(
      source, np.arange(45), (32, 32, 3), chunk=chunk
    )
    for chunk in (45, 1, 13)
  )
  for other in others:
    chex.assert_trees_all_equal(
      (whole.sums, whole.histogram), (other.sums, other.histogram)
    )
    for field in dataclasses.fields(duplicates.Signatures):
      chex.assert_trees_all_equal(
        *(getattr(p.signatures, field.name) for p in (whole, other))
      )
  found = duplicates.find(whole.signatures)
  small = duplicates.find(whole.signatures, rows=3, columns=7)
  assert found.first.tolist() == small.first.tolist() == [0, 1, 2, 3, 4]
  assert found.second.tolist() == small.second.tolist() == [40, 41, 42, 43, 44]
  chex.assert_trees_all_equal(found.cluster, small.cluster)


def by_every_pair(images):
  """Finds what `find` should, without candidates: (first, second, kind)."""
  signed = duplicates.signatures(images)
  n, found = len(images), []
  copy = [
    next((j for j in range(i) if (images[i] == images[j]).all()), None)
    for i in range(n)
  ]
  for i in range(n):
    if copy[i] is not None:
      found.append((copy[i], i, 'identical'))
      continue
    for j in range(i + 1, n):
      if copy[j] is not None:
        continue
      one, two = signed.details[i : i + 1], signed.details[j : j + 1]
      if duplicates.evidence(one, two) >= duplicates.EVIDENCE:
        found.append((i, j, 'near'))
      elif duplicates.evidence(one, two[:, :, ::-1]) >= duplicates.EVIDENCE:
        found.append((i, j, 'mirrored'))
  return sorted(found)


def test_duplicates_are_those_of_looking_at_every_pair():
  images = pictures(60)
  planted = np.stack(
    [
      images[3],
      images[3],
      recompressed(images[7]),
      (images[9] * 0.8 + 10).astype(np.uint8),
      images[11][:, ::-1],
      recompressed(images[13][:, ::-1]),
    ]
  )
  images = np.concatenate([images, planted])
  found = duplicates.find(duplicates.signatures(images))
  pairs = sorted(
    (int(i), int(j), duplicates.KINDS[k])
    for i, j, k in zip(found.first, found.second, found.kind)
  )
  assert pairs == by_every_pair(images)
  assert pairs == [
    (3, 60, 'identical'),
    (3, 61, 'identical'),
    (7, 62, 'near'),
    (9, 63, 'near'),
    (11, 64, 'mirrored'),
    (13, 65, 'mirrored'),
  ]
  assert [group.tolist() for group in found.clusters()] == [
    [3, 60, 61],
    [7, 62],
    [9, 63],
    [11, 64],
    [13, 65],
  ]


def test_plain_and_smooth_images_are_no_duplicates_of_each_other():
  ramp = np.linspace(0, 255, 32)
  skies = [
    np.tile((120 + 0.4 * k + scale * ramp)[:, None, None], (1, 32, 3))
    for k, scale in ((0, 0.1), (30, 0.12), (60, 0.2))
  ]
  flat = [np.full((32, 32, 3), level) for level in (0, 50, 255)]
  rng = np.random.default_rng(0)
  noisy = [sky + rng.normal(0, 2, sky.shape) for sky in skies]
  images = np.stack([*noisy, *flat]).clip(0, 255).astype(np.uint8)
  assert len(duplicates.find(duplicates.signatures(images))) == 0


def test_distinct_digits_are_no_duplicates():
  images = load('digits').splits['train'].images
  assert len(np.unique(images, axis=0)) == len(images)
  assert len(duplicates.find(duplicates.signatures(images))) == 0


def split_of(name, labels, classes):
  nothing = np.zeros((1, 256), np.int64)
  labels = np.asarray(labels, np.int32)
  counts = np.bincount(labels, minlength=classes)
  return exploration.Split(
    name, labels, counts, np.arange(len(labels)), (0.0,), (1.0,), nothing
  )


def test_leaks_and_conflicts_are_counted_by_image():
  splits = [split_of('train', [0, 1, 0], 2), split_of('test', [0, 1, 1], 2)]
  # 0 and 3 leak; 2 and 4 leak and conflict; 5 is alone.
  images = pictures(6)
  images[3], images[4] = images[0], images[2]
  told = exploration.duplicate_report(
    splits, duplicates.find(duplicates.signatures(images))
  )
  assert [(pair.across, pair.conflict) for pair in told.pairs] == [
    (True, False),
    (True, True),
  ]
  assert told.pairs[1].indices == (2, 1)
  assert (told.clusters, told.images, told.conflicting) == (2, 4, 1)
  assert told.leaked == {'test': 2}


def test_a_sample_is_drawn_from_every_split_and_for_good():
  rows = exploration.draw_from({'train': 1000, 'test': 100}, 110)
  assert {name: len(part) for name, part in rows.items()} == {'train': 100, 'test': 10}
  again = exploration.draw_from({'train': 1000, 'test': 100}, 110)
  chex.assert_trees_all_equal(rows, again)
  assert len(np.unique(rows['train'])) == 100
  assert exploration.draw(10, 3).tolist() == [1, 2, 3]


def changed(*overrides):
  config = override(base_config(), ['data.name=digits', *overrides])
  dataset = load(config.data)
  run = Run.build(config, DatasetInfo.of(dataset), mesh=make_mesh(data=1))
  return augmented(run.task, dataset, np.arange(4), 3), dataset


def test_what_is_not_augmented_is_said_to_be_so():
  shown, _ = changed()
  assert shown.fields == ()
  chex.assert_shape(shown.versions, (4, 0, 8, 8, 1))


def test_augmented_images_come_back_from_the_normalisation():
  shown, dataset = changed('augment.flip=True')
  chex.assert_trees_all_equal(shown.originals, dataset.splits['train'].images[:4])
  chex.assert_shape(shown.versions, (4, 3, 8, 8, 1))
  seen = set()
  for original, versions in zip(shown.originals, shown.versions):
    for version in versions:
      same = (version == original).all()
      assert same or (version == original[:, ::-1]).all()
      seen.add(bool(same))
  assert seen == {True, False}


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_crops_are_those_of_the_pipeline(pipeline):
  shown, _ = changed(
    f'data.pipeline={pipeline}',
    'data.image_size=16',
    'augment.resized_crop=(0.3,0.5)',
  )
  assert shown.fields[0] == 'augment.resized_crop = (0.3, 0.5)'
  for original, versions in zip(shown.originals, shown.versions):
    for version in versions:
      assert not (version == original).all()


def test_of_a_gan_what_the_discriminator_sees_is_shown():
  shown, _ = changed(
    'task=gan',
    'model.name=dcgan',
    'gan.diffaugment=("translation",)',
  )
  assert shown.fields == ("gan.diffaugment = ('translation',)",)
  assert not (shown.versions == shown.originals[:, None]).all()


def test_sizes_of_files_are_told():
  headers = Headers(
    np.array([10, 20]), np.array([20, 20]), np.array([True, False]), ('a.png',)
  )
  assert dict(report.size_facts(headers)) == {
    'width': '20',
    'height': '10 to 20, median 15',
    'width / height': '1.00 to 2.00',
    'grey': '1 of 2',
    'unreadable': '1',
  }
  assert report.size_facts(None) == []


def test_names_are_escaped_and_numbers_are_the_same_everywhere(tmp_path):
  config = override(
    base_config(),
    [
      'name=<b>',
      'data.name=synthetic',
      'data.synthetic_examples=60',
      'data.image_size=8',
    ],
  )
  explored, page = jaxvision.explore(config, tmp_path)
  html = page.read_text()
  assert '<b>' not in html
  assert '&lt;b&gt;' in html
  record = json.loads(page.with_suffix('.json').read_text())
  assert record['synthetic'] is True
  assert 'SYNTHETIC' in html
  assert 'SYNTHETIC' in report.lines(explored)[0]
  for told, split in zip(record['splits'], explored.splits):
    assert sum(told['counts']) == told['examples'] == split.examples
    assert sum(told['histogram'][0]) == 64 * split.examples
    assert f'{split.mean[0]:.4f}' in html
