"""TFDS sets made here, record by record, in the layout that TFDS gives them."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvision.data import SubsetSource, fit_image, load
from jaxvision.data.dataset import read_crops
from jaxvision.data.sources import tfds
from jaxvision.errors import UserError

pytestmark = pytest.mark.long

array_record = pytest.importorskip(
  'array_record.python.array_record_module', reason='array_record has no wheel here'
)

_FEATURE = 'tensorflow_datasets.core.features'


def _image(*dimensions, dtype='uint8'):
  shape = {'dimensions': [str(d) for d in dimensions]}
  return {
    'pythonClassName': f'{_FEATURE}.image_feature.Image',
    'image': {'dtype': dtype, 'shape': shape},
  }


def _classes(n):
  return {
    'pythonClassName': f'{_FEATURE}.class_label_feature.ClassLabel',
    'classLabel': {'numClasses': str(n)},
  }


def _png(pixels):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'PNG')
  return buffer.getvalue()


def _record(image, label):
  from tensorflow_datasets.proto import tf_example_pb2

  example = tf_example_pb2.Example()
  example.features.feature['image'].bytes_list.value.append(image)
  example.features.feature['label'].int64_list.value.append(label)
  return example.SerializeToString()


def _prepared(data_dir, path, splits, features=None, file_format='array_record'):
  """Writes DATA_DIR/PATH, as TFDS would prepare it.

  Args:
    data_dir: TFDS directory.
    path: 'name/version' or 'name/config/version'.
    splits: name -> list of (encoded image, label).
    features: name -> feature as in features.json; None: 6x5 RGB of three classes.
    file_format: what dataset_info.json says, and the ending of the files.
  """
  features = features or {'image': _image(6, 5, 3), 'label': _classes(3)}
  folder = data_dir / path
  folder.mkdir(parents=True)
  name = path.split('/')[0]
  infos = []
  for split, examples in splits.items():
    file = folder / f'{name}-{split}.{file_format}-00000-of-00001'
    writer = array_record.ArrayRecordWriter(str(file), 'group_size:1')
    for image, label in examples:
      writer.write(_record(image, label))
    writer.close()
    infos.append(
      {
        'name': split,
        'numBytes': '1',
        'shardLengths': [str(len(examples))],
        'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
      }
    )
  info = {'name': name, 'version': folder.name, 'splits': infos}
  info |= {'fileFormat': file_format, 'description': '', 'citation': ''}
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  described = {
    'pythonClassName': f'{_FEATURE}.features_dict.FeaturesDict',
    'featuresDict': {'features': features},
  }
  (folder / 'features.json').write_text(json.dumps(described))
  return folder


def _examples(n, shape=(6, 5, 3), seed=0, unlabelled=False):
  images = np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)
  return [(_png(x), -1 if unlabelled else i % 3) for i, x in enumerate(images)]


def _pixels(source):
  return np.stack([source[i][0] for i in range(len(source))])


@pytest.fixture
def data_dir(tmp_path, fresh_cache, monkeypatch):
  path = tmp_path / 'tfds'
  monkeypatch.setenv('TFDS_DATA_DIR', str(path))
  return path


@pytest.fixture
def no_tensorflow(tmp_path, monkeypatch):
  """A child process that finds no TensorFlow, whether or not there is one."""
  stub = tmp_path / 'path' / 'tensorflow'
  stub.mkdir(parents=True)
  (stub / '__init__.py').write_text('raise ImportError("hidden by the test")')
  paths = [str(stub.parent), os.getcwd(), os.environ.get('PYTHONPATH', '')]
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, paths)))


def test_both_pipelines_read_the_same(data_dir):
  examples = _examples(30)
  _prepared(data_dir, 'shapes/1.0.0', {'train': examples, 'test': _examples(6, seed=1)})
  resident = load('shapes', train_fraction=0.8)
  streaming = load('shapes', train_fraction=0.8, pipeline='streaming')
  assert (resident.pipeline, streaming.pipeline) == ('resident', 'streaming')
  assert {s: len(v) for s, v in resident.splits.items()} == {
    'train': 24,
    'test': 6,
    'validation': 6,
  }
  for name, source in resident.splits.items():
    chex.assert_trees_all_equal(
      np.asarray(source.images), _pixels(streaming.splits[name])
    )
    chex.assert_trees_all_equal(source.labels, streaming.splits[name].labels)
  assert (resident.mean, resident.std) == (streaming.mean, streaming.std)
  assert resident.class_names == ('0', '1', '2')
  whole = load('shapes').splits['train']
  with Image.open(io.BytesIO(examples[7][0])) as image:
    chex.assert_trees_all_equal(whole[7][0], np.asarray(image))
  assert whole[7][1] == 1


def test_streaming_alone_gives_the_same_statistics_and_caches_no_images(
  data_dir, fresh_cache
):
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(9), 'test': _examples(3)})
  streaming = load('shapes', pipeline='streaming')
  assert not list(fresh_cache.rglob('*_images.npy'))
  resident = load('shapes')
  assert (resident.mean, resident.std) == (streaming.mean, streaming.std)


def test_a_large_set_reads_labels_without_decoding(data_dir, monkeypatch):
  monkeypatch.setattr('jaxvision.data.statistics.STATISTICS_SAMPLE', 4)
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(30), 'test': _examples(3)})
  calls = []
  decode = tfds.decode_image
  monkeypatch.setattr(tfds, 'decode_image', lambda *a: calls.append(a) or decode(*a))
  dataset = load('shapes', resident_limit_mb=0, train_fraction=0.5)
  assert dataset.pipeline == 'streaming'
  assert len(calls) == 4
  assert np.bincount(dataset.splits['validation'].labels).tolist() == [5, 5, 5]


def test_streaming_sources_open_their_files_in_each_process(data_dir):
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(6), 'test': _examples(3)})
  source = load('shapes', pipeline='streaming', train_fraction=0.5).splits['train']
  pixels = _pixels(source)
  sent = pickle.dumps(source)
  program = (
    'import pickle, sys; s = pickle.load(sys.stdin.buffer); '
    'print(sum(int(s[i][0].sum()) for i in range(len(s))), "tensorflow" in sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], input=sent, capture_output=True, check=True
  )
  assert done.stdout.decode().split() == [str(pixels.sum()), 'False']
  with pytest.raises(IndexError):
    source.source[99]


@pytest.mark.parametrize(
  ('test', 'split'),
  [(None, 'validation'), (_examples(3, unlabelled=True), 'validation')],
)
def test_validation_stands_in_for_an_unlabelled_test(
  data_dir, fresh_cache, test, split
):
  splits = {'train': _examples(6), 'validation': _examples(4, seed=1)}
  _prepared(data_dir, 'shapes/1.0.0', splits | ({'test': test} if test else {}))
  dataset = load('shapes')
  assert len(dataset.splits['test']) == 4
  assert 'test = split "validation"' in dataset.origin
  assert split in json.loads((fresh_cache / 'shapes/index.json').read_text())['origin']


def test_a_set_with_train_alone_is_split(data_dir):
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(30)})
  dataset = load('shapes', test_fraction=0.2)
  assert np.bincount(dataset.splits['test'].labels).tolist() == [2, 2, 2]


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_a_split_without_labels_is_told_as_such(data_dir, fresh_cache, pipeline):
  _prepared(data_dir, 'none/1.0.0', {'train': _examples(6, unlabelled=True)})
  with pytest.raises(UserError, match='"train" of data set "none" has no labels of 6'):
    load('none', pipeline=pipeline)
  some = _examples(12) + _examples(3, unlabelled=True)
  _prepared(data_dir, 'some/1.0.0', {'train': _examples(6), 'test': some})
  with pytest.raises(UserError, match='"test" .* no label for 3 images of 15'):
    load('some', pipeline=pipeline)
  assert not list(fresh_cache.glob('*'))


def test_the_channels_that_it_has_are_no_other_set(data_dir, fresh_cache):
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(6), 'test': _examples(3)})
  load('shapes')
  load('shapes', channels=3)
  assert len(list(fresh_cache.iterdir())) == 1
  assert load('shapes', channels=1).image_shape == (6, 5, 1)


def test_versions_and_configs_are_found_by_name(data_dir):
  test = {'test': _examples(3)}
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(3), **test})
  _prepared(data_dir, 'shapes/1.10.0', {'train': _examples(6), **test})
  _prepared(data_dir, 'shapes/1.9.0', {'train': _examples(9), **test})
  assert len(load('shapes').splits['train']) == 6
  assert len(load('shapes:1.0.0').splits['train']) == 3
  assert len(load('shapes:1.9.*').splits['train']) == 9
  _prepared(data_dir, 'many/small/1.0.0', {'train': _examples(3), **test})
  assert len(load('many').splits['train']) == 3
  _prepared(data_dir, 'many/large/1.0.0', {'train': _examples(12), **test})
  assert len(load('many/large').splits['train']) == 12
  assert len(load('many/small:1.0.0').splits['train']) == 3
  with pytest.raises(UserError, match=r'several configs.*data.name=many/large'):
    load('many')
  (data_dir / 'many/.config').mkdir()
  default = json.dumps({'default_config_name': 'small'})
  (data_dir / 'many/.config/metadata.json').write_text(default)
  assert len(load('many').splits['train']) == 3


def test_the_size_that_it_has_is_no_other_set(data_dir, fresh_cache):
  features = {'image': _image(6, 6, 3), 'label': _classes(3)}
  splits = {'train': _examples(6, (6, 6, 3)), 'test': _examples(3, (6, 6, 3))}
  folder = _prepared(data_dir, 'square/1.0.0', splits, features)
  plain = _pixels(load('square').splits['test'])
  kept = sorted(p.name for p in fresh_cache.iterdir())
  for gone in (False, True):  # in a copied cache the set itself is not there
    if gone:
      shutil.rmtree(folder)
    same = _pixels(load('square', image_size=6).splits['test'])
    np.testing.assert_array_equal(same, plain)
    assert sorted(p.name for p in fresh_cache.iterdir()) == kept


def test_sizes_that_differ_need_image_size(data_dir):
  features = {'image': _image(None, None, 3), 'label': _classes(3)}
  examples = _examples(3) + _examples(3, (8, 9, 3))
  splits = {'train': examples, 'test': examples}
  folder = _prepared(data_dir, 'shapes/1.0.0', splits, features)
  described = (folder / 'features.json').read_text().replace('"None"', '"-1"')
  (folder / 'features.json').write_text(described)
  with pytest.raises(UserError, match=r'differ in size: set data\.image_size'):
    load('shapes')
  assert load('shapes', image_size=4).image_shape == (4, 4, 3)
  assert load('shapes', image_size=4, channels=1).image_shape == (4, 4, 1)


@pytest.mark.parametrize(
  'features',
  [
    {'image': _image(6, 5, 3)},
    {'image': _image(6, 5, 3), 'label': _image(6, 5, 3)},
    {'image': _image(6, 5, 1, dtype='uint16'), 'label': _classes(3)},
  ],
)
def test_sets_of_another_kind_are_refused(data_dir, features):
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(3)}, features)
  with pytest.raises(UserError, match='"shapes" is not for image classification'):
    load('shapes')


def test_tfrecord_is_refused(data_dir):
  splits = {'train': _examples(3), 'test': _examples(3)}
  _prepared(data_dir, 'shapes/1.0.0', splits, file_format='tfrecord')
  with pytest.raises(
    UserError, match=r'prepared as tfrecord.*jaxvision prepare shapes'
  ):
    load('shapes')


def test_no_train_split_is_refused(data_dir):
  _prepared(data_dir, 'shapes/1.0.0', {'test': _examples(3)})
  with pytest.raises(UserError, match=r'no split "train" \(it has test\)'):
    load('shapes')


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_unreadable_records_are_named_or_skipped(data_dir, pipeline):
  examples = _examples(9)
  examples[4] = (b'no image', 1)
  _prepared(data_dir, 'shapes/1.0.0', {'train': examples, 'test': _examples(3)})
  with pytest.raises(UserError, match='record 4 of split "train"'):
    load('shapes', pipeline=pipeline)
  dataset = load('shapes', pipeline=pipeline, skip_unreadable=True)
  assert dataset.skipped == 1
  assert dataset.splits['train'].labels.tolist() == [0, 1, 2, 0, 2, 0, 1, 2]
  with pytest.raises(UserError, match='record 4 of split "train"'):
    load('shapes', pipeline=pipeline)


def test_a_cut_record_file_is_told_in_one_line(data_dir):
  folder = _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(9)})
  (file,) = folder.glob('*array_record*')
  file.write_bytes(file.read_bytes()[:100])
  with pytest.raises(
    UserError, match=r'cannot be read.*prepare the set again'
  ) as caught:
    load('shapes', test_fraction=0.5)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_a_copied_cache_needs_neither_the_files_nor_tfds(
  data_dir, fresh_cache, tmp_path, pipeline
):
  splits = {'train': _examples(6), 'test': _examples(3)}
  _prepared(data_dir, 'shapes/1.0.0', splits)
  before = load('shapes')
  shutil.copytree(fresh_cache, tmp_path / 'copied')
  program = (
    'import sys; sys.modules["tensorflow_datasets"] = None; '
    'from jaxvision.data import load; '
    f'd = load("shapes", pipeline={pipeline!r}); s = d.splits["train"]; '
    'print(d.mean, sum(int(s[i][0].sum()) for i in range(6)))'
  )
  env = os.environ | {
    'JAXVISION_CACHE': str(tmp_path / 'copied'),
    'TFDS_DATA_DIR': str(tmp_path / 'nothing'),
  }
  done = subprocess.run(
    [sys.executable, '-c', program], env=env, capture_output=True, text=True, check=True
  )
  total = int(np.sum(before.splits['train'].images, dtype=np.int64))
  assert done.stdout.strip() == f'{before.mean} {total}'


def test_a_set_prepared_anew_is_decoded_anew(data_dir):
  _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(6), 'test': _examples(3)})
  load('shapes')
  _prepared(data_dir, 'shapes/1.0.1', {'train': _examples(9), 'test': _examples(3)})
  assert len(load('shapes').splits['train']) == 9


def test_what_cannot_be_prepared_tells_the_ways_out(
  data_dir, no_tensorflow, fresh_cache
):
  with pytest.raises(UserError) as caught:
    load('kmnist')
  message = str(caught.value)
  assert '\n' not in message
  for part in (
    'data set "kmnist"',
    str(data_dir),
    str(fresh_cache / 'kmnist'),
    'TensorFlow is not installed',
    'pip install jaxvision[tfds]',
    'jaxvision prepare kmnist --config.data.dir=DIR',
    str(data_dir / 'downloads'),
  ):
    assert part in message
  assert not (data_dir / 'kmnist').exists()


def test_a_misspelt_set_names_the_nearest(data_dir, no_tensorflow):
  with pytest.raises(UserError, match='"cifr10".*did you mean "cifar10"'):
    load('cifr10')
  with pytest.raises(UserError, match=r'neither digits.*did you mean "cifar10"'):
    load('cifar 10')
  with pytest.raises(UserError, match='did you mean "digits"'):
    load('digits!')


@pytest.mark.parametrize('name', ['../etc', 'a/b/c', 'mnist:3', ''])
def test_names_that_are_none_are_refused(data_dir, name):
  with pytest.raises(UserError, match='TFDS name'):
    load(name)


def test_prepare_leaves_a_prepared_set_alone(data_dir):
  folder = _prepared(data_dir, 'shapes/1.0.0', {'train': _examples(3)})
  assert tfds.prepare('shapes') == str(folder)
  assert tfds.prepare('shapes:1.0.0', str(data_dir)) == str(folder)


def test_a_child_that_dies_is_told(data_dir, monkeypatch, tmp_path):
  stub = tmp_path / 'path' / 'tensorflow'
  stub.mkdir(parents=True)
  (stub / '__init__.py').write_text(
    'import os, sys; print("out of memory", file=sys.stderr); os._exit(9)'
  )
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(stub.parent), os.getcwd()]))
  with pytest.raises(UserError, match='ended with status 9: out of memory'):
    load('kmnist')


def test_crops_and_resizing_reach_encoded_photographs_of_any_size(data_dir):
  rng = np.random.default_rng(0)
  pixels = [rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8) for i in range(8)]
  features = {'image': _image(-1, -1, 3), 'label': _classes(3)}
  examples = [(_png(x), i % 3) for i, x in enumerate(pixels)]
  _prepared(data_dir, 'dogs/1.0.0', {'train': examples, 'test': examples}, features)
  fields = {'image_size': 10, 'crop_fraction': 0.8, 'interpolation': 'bicubic'}
  both = [load('dogs', pipeline=p, **fields) for p in ('resident', 'streaming')]
  for dataset in both:
    for x, image in zip(pixels, _pixels(dataset.splits['train'])):
      chex.assert_trees_all_equal(image, fit_image(x, (10, 10, 3), 0.8, 'bicubic'))
  sizes = []

  def box(height, width):
    sizes.append((height, width))
    return 1, 2, 12, 9

  source = SubsetSource(both[1].splits['train'], np.array([7, 2, 5]))
  crops = read_crops(source, [2, 0], [box, box])
  assert sizes == [(25, 25), (27, 23)]
  for (image, label), i in zip(crops, (5, 7)):
    assert label == i % 3
    expected = fit_image(pixels[i], (10, 10, 3), 1.0, 'bicubic', box)
    chex.assert_trees_all_equal(image, expected)
