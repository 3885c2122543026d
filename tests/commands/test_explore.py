"""The command `explore`: digits, and folders with planted duplicates."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision.main import main

_SIDE = 48


def photographs(count, seed):
  """Distinct pictures of one size: coarse colours under fine grain."""
  rng = np.random.default_rng(seed)
  total = np.zeros((count, _SIDE, _SIDE, 3), np.float32)
  for size, depth in ((3, 3), (6, 3), (12, 1), (24, 1)):
    coarse = rng.uniform(-1, 1, (count, size, size, depth)).astype(np.float32)
    total += coarse.repeat(_SIDE // size, 1).repeat(_SIDE // size, 2)
  return (128 + 45 * total).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Two classes in two splits, with duplicates of each sort and files of many sizes."""
  root = tmp_path_factory.mktemp('photos')
  images = iter(photographs(40, 0))
  kept = {}
  for split, count in (('train', 12), ('test', 6)):
    for name in ('cat', 'dog'):
      (root / split / name).mkdir(parents=True)
      for i in range(count):
        kept[split, name, i] = next(images)
        # Enlarged by whole pixels: the same picture, wider or higher on the disk.
        wide = 1 + i % 3
        picture = Image.fromarray(kept[split, name, i].repeat(wide, 0).repeat(wide, 1))
        picture.save(root / split / name / f'{i}.png')
  train, test = root / 'train', root / 'test'
  (train / 'cat' / 'copy.png').write_bytes((train / 'cat' / '1.png').read_bytes())
  (test / 'dog' / 'leak.png').write_bytes((train / 'dog' / '2.png').read_bytes())
  (train / 'dog' / 'not.png').write_bytes((train / 'cat' / '3.png').read_bytes())
  Image.fromarray(kept['train', 'cat', 4]).save(test / 'cat' / 'jpeg.jpg', quality=75)
  brighter = (kept['train', 'dog', 5] * 0.85 + 20).astype(np.uint8)
  Image.fromarray(brighter).save(test / 'cat' / 'wrong.png')
  Image.fromarray(kept['train', 'cat', 6][:, ::-1]).save(train / 'cat' / 'mirror.png')
  Image.fromarray(kept['test', 'cat', 0][..., 0]).save(test / 'cat' / 'grey.png')
  (test / 'cat' / 'grey.png').rename(test / 'cat' / '0.png')
  (train / 'cat' / 'broken.jpg').write_bytes(b'no image')
  return root


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_planted_duplicates_are_found_and_no_others(photos, tmp_path, capsys, pipeline):
  output = tmp_path / 'new' / 'pages'
  arguments = [
    'explore',
    '--config=configs/folder_cnn.py',
    f'--config.data.root={photos}',
    '--config.data.image_size=48',
    '--config.data.skip_unreadable',
    f'--config.data.pipeline={pipeline}',
    f'--output={output}',
  ]
  assert main(arguments) == 0
  told = capsys.readouterr().out
  record = json.loads((output / 'explore.json').read_text())
  found = {
    (pair['kind'], *(place.removeprefix('train/') for place in pair['places']))
    for pair in record['pairs']
  }
  assert found == {
    ('identical', 'cat/1.png', 'cat/copy.png'),
    ('identical', 'dog/2.png', 'test/dog/leak.png'),
    ('identical', 'cat/3.png', 'dog/not.png'),
    ('near', 'cat/4.png', 'test/cat/jpeg.jpg'),
    ('near', 'dog/5.png', 'test/cat/wrong.png'),
    ('mirrored', 'cat/6.png', 'cat/mirror.png'),
  }
  counts = record['duplicates']
  assert (counts['identical'], counts['near'], counts['mirrored']) == (3, 2, 1)
  assert counts['across_splits'] == 3
  assert counts['unlike_labels'] == counts['clusters_of_unlike_labels'] == 2
  assert (counts['clusters'], counts['images']) == (6, 12)
  assert counts['leaked'] == {'test': 3}
  assert '3 of 15 test images (20.00%) have a duplicate in train' in told
  assert '2 pairs of duplicates have different labels' in told
  assert record['skipped'] == 1
  assert record['files'] == {
    'width': '48 to 144, median 96',
    'height': '48 to 144, median 96',
    'width / height': '1.00',
    'grey': '1 of 42',
    'unreadable': '1',
  }
  assert record['augmentation'][0] == 'augment.flip = True'
  html = (output / 'explore.html').read_text()
  assert 'test/dog/leak.png' in html
  for picture in ('samples', 'augmented', 'sizes', 'pairs_conflict', 'pairs_leak'):
    assert (output / f'{picture}.png').read_bytes().startswith(b'\x89PNG')


def test_digits_are_explored_without_training(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = Path(__file__).parent.parent.parent / 'configs' / 'digits_cnn.py'
  assert main(['explore', f'--config={config}', '--images=500']) == 0
  first, *others = capsys.readouterr().out.splitlines()
  assert first.startswith(
    'digits: 1,438 train, 359 test; 10 classes, 8 \N{MULTIPLICATION SIGN} 8 grey'
  )
  assert others[-1] == 'report: exploration/digits_cnn/explore.html'
  assert any(line.startswith('note: Pixels and duplicates') for line in others)
  assert not (tmp_path / 'runs').exists()
  page = Path('exploration/digits_cnn/explore.html').read_bytes()
  record = json.loads(Path('exploration/digits_cnn/explore.json').read_text())
  assert record['images_looked_at'] == 499  # 400 and 99: whole shares of both
  assert sum(record['splits'][0]['counts']) == record['splits'][0]['examples'] == 1438
  assert record['duplicates']['identical'] == record['duplicates']['near'] == 0
  assert record['files'] == {}
  # A second time, with a picture of before that there is nothing for any more.
  stale = Path('exploration/digits_cnn/pairs_leak.png')
  stale.write_bytes(b'')
  assert main(['explore', f'--config={config}', '--images=500']) == 0
  assert Path('exploration/digits_cnn/explore.html').read_bytes() == page
  assert not stale.exists()


def test_made_up_images_are_said_to_be_so_everywhere(tmp_path, capsys):
  arguments = ('--config.data.name=synthetic', '--config.data.synthetic_examples=80')
  page = tmp_path / 'explore.html'
  output = f'--output={tmp_path}'
  assert main(['explore', '--config=configs/digits_cnn.py', *arguments, output]) == 0
  assert 'SYNTHETIC' in capsys.readouterr().out
  assert 'The images are synthetic' in page.read_text()
  assert json.loads(page.with_suffix('.json').read_text())['synthetic'] is True


def test_a_class_that_a_split_lacks_is_named(tmp_path, capsys):
  rng = np.random.default_rng(0)
  for place in ('train/ant', 'train/bee', 'test/ant'):
    (tmp_path / place).mkdir(parents=True)
    for i in range(3):
      pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(tmp_path / place / f'{i}.png')
  root = f'--config.data.root={tmp_path}'
  output = f'--output={tmp_path}/pages'
  assert main(['explore', '--config=configs/folder_cnn.py', root, output]) == 0
  assert 'test has no image of bee' in capsys.readouterr().out.splitlines()
  record = json.loads((tmp_path / 'pages' / 'explore.json').read_text())
  assert record['splits'][1]['missing'] == ['bee']
  assert record['splits'][1]['imbalance'] is None


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'explore: name a config with --config=FILE'),
    (('--config=configs/none.py',), 'is not there'),
    (('--config=configs/digits_cnn.py', 'digits'), 'takes no argument "digits"'),
    (('--config=configs/digits_cnn.py', '--workdir=a'), 'has no option "--workdir=a"'),
    (('--config=configs/digits_cnn.py', '--output=README.md'), 'is no directory'),
    (('--config=configs/digits_cnn.py', '--images=-1'), '--images must be'),
    (('--config=configs/digits_cnn.py', '--config.data.name=no such'), 'no such'),
    (('--config=configs/digits_cnn.py', '--config.augment.cutout=9'), 'augment.cutout'),
  ],
)
def test_explore_usage_errors(capsys, arguments, message):
  assert main(['explore', *arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert message in error
  assert error.count('\n') == 1
