"""How folders are read: usual layouts, near misses, and what has two readings."""

import pytest

from jaxvision.data.sources.folder_layout import read_layout
from jaxvision.errors import UserError


@pytest.fixture
def tree(tmp_path):
  """Makes empty files that are named as images; a name that ends in / is a folder."""

  def make(*names):
    for name in names:
      path = tmp_path / 'root' / name
      (path if name[-1] == '/' else path.parent).mkdir(parents=True, exist_ok=True)
      if name[-1] != '/':
        path.write_bytes(b'')
    return tmp_path / 'root'

  return make


def _read(root):
  layout = read_layout(root)
  pools = {pool: str(base.relative_to(root)) for pool, base in layout.pools.items()}
  return pools, layout.classes


_AB = ('a', 'b')


@pytest.mark.parametrize(
  ('files', 'pools', 'classes'),
  [
    (['a/1.png', 'b/1.png'], {'train': '.'}, _AB),
    (['train/a/1.png', 'train/b/1.png'], {'train': 'train'}, _AB),
    (
      ['Train/a/1.png', 'Train/b/1.png', 'Test/a/1.png'],
      {'train': 'Train', 'test': 'Test'},
      _AB,
    ),
    (
      ['training_set/a/1.png', 'training_set/b/1.png', 'test_set/b/1.png'],
      {'train': 'training_set', 'test': 'test_set'},
      _AB,
    ),
    (
      ['train/a/1.png', 'train/b/1.png', 'Validation/a/1.png'],
      {'train': 'train', 'test': 'Validation'},
      _AB,
    ),
    (
      ['train/a/1.png', 'train/b/1.png', 'val/a/1.png', 'Test/a/1.png'],
      {'train': 'train', 'test': 'Test'},
      _AB,
    ),
    (['photos/a/1.png', 'photos/b/1.png'], {'train': 'photos'}, _AB),
    (['x/y/a/1.png', 'x/y/b/1.png', '__MACOSX/x/1.png'], {'train': 'x/y'}, _AB),
    (
      ['x/train/a/1.png', 'x/train/b/1.png', 'x/val/a/1.png'],
      {'train': 'x/train', 'test': 'x/val'},
      _AB,
    ),
    (['train/images/a/1.png', 'train/images/b/1.png'], {'train': 'train/images'}, _AB),
    (['a/1.png'], {'train': '.'}, ('a',)),
    (['1.png', '2.png'], {'train': '.'}, ()),
    (['train/1.png', 'test/1.png'], {'train': 'train'}, ()),
    (['train/1.png', 'plane/1.png', 'test/1.png'], {'train': '.'}, None),
    (
      ['train/a/1.png', 'train/b/1.png', 'test/a/1.png', 'more/1.png'],
      {'train': 'train', 'test': 'test'},
      _AB,
    ),
  ],
)
def test_layouts_that_are_understood(tree, files, pools, classes):
  expected = ('plane', 'test', 'train') if classes is None else classes
  assert _read(tree(*files)) == (pools, expected)


@pytest.mark.parametrize(
  ('files', 'words'),
  [
    (
      ['train/a/1.png', 'Train/b/1.png'],
      ['Train/, train/', 'may be the training split'],
    ),
    (
      ['train/a/1.png', 'test/a/1.png', 'Test/a/1.png'],
      ['test/, Test/', 'may be the test split'],
    ),
    (
      ['car/1.png', 'plane/1.png', 'train/diesel/1.png', 'train/steam/1.png'],
      ['two ways', 'diesel, steam', 'car, plane, train', 'rename train/'],
    ),
    (
      ['cat/1.png', 'dog/1.png', 'train/cat/1.png', 'train/dog/1.png'],
      ['two ways', 'cat, dog, train'],
    ),
    (
      ['cat/1.png', 'dog/1.png', 'test/1.png'],
      ['two ways', 'test/ as a split', 'cat, dog, test as the classes'],
    ),
    (
      ['cat/1.png', 'dog/1.png', 'val/cat/1.png'],
      ['two ways', 'val/ as a split', 'make train/'],
    ),
    (['test/a/1.png', 'val/a/1.png'], ['no train/ with class folders']),
  ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_both(tree, files, words):
  with pytest.raises(UserError) as caught:
    read_layout(tree(*files))
  for word in ['data.root', *words]:
    assert word in str(caught.value)


def test_what_is_not_read_is_named(tree):
  root = tree('train/a/1.png', 'train/b/1.png', 'train/2.png', '3.png', '4.jpg')
  tree('test/5.png', 'val/a/1.png', 'notes/x.txt')
  layout = read_layout(root)
  assert layout.pools == {'train': root / 'train', 'test': root / 'val'}
  assert layout.not_used == (
    'notes/',
    'test/ (1 image without class folders)',
    f'2 images directly in {root}',
    f'1 image directly in {root / "train"}',
  )
