"""What counts as an image in a folder, for every command."""

import os

import pytest

from jaxvision.data.image_files import count_images, find_in, subfolders


def _paths(folder):
  return [image.path for image in find_in(folder).images]


def _touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'')


def test_formats_in_either_case_at_any_depth_sorted(tmp_path):
  names = ['a.BMP', 'a.gif', 'a/b/c.tif', 'a/d.webp', 'b.jfif', 'b.JPG', 'c.ppm']
  _touch(tmp_path, *names, 'notes.txt', 'b/Thumbs.db', 'README')
  assert _paths(tmp_path) == sorted(names, key=lambda name: name.split('/'))
  assert find_in(tmp_path).others == {'.txt': 1, '.db': 1, 'without an ending': 1}
  assert (count_images(tmp_path), subfolders(tmp_path)) == (5, ['a', 'b'])


def test_what_is_hidden_or_left_by_an_archiver_is_passed_over(tmp_path):
  _touch(tmp_path, 'a.png', '._a.png', '.DS_Store', '.git/b.png', '__MACOSX/c/d.png')
  _touch(tmp_path, 'e/.hidden/f.png', 'e/__MACOSX/._g.png', 'e/._h.jpg')
  assert _paths(tmp_path) == ['a.png']
  assert not find_in(tmp_path).others
  assert subfolders(tmp_path) == ['e']


def test_links_are_followed_and_circles_are_not(tmp_path):
  _touch(tmp_path, 'elsewhere/x.png', 'root/a/1.png', 'root/b/2.png')
  root = tmp_path / 'root'
  (root / 'a/link').symlink_to(tmp_path / 'elsewhere')
  (root / 'a/file.png').symlink_to(tmp_path / 'elsewhere/x.png')
  (root / 'a/again').symlink_to(root / 'a')
  (root / 'a/up').symlink_to(root)  # would bring the images of b
  (root / 'a/gone.png').symlink_to(tmp_path / 'nowhere')
  (root / 'a/itself').symlink_to('itself')
  assert _paths(root / 'a') == ['1.png', 'file.png', 'link/x.png']
  assert find_in(root / 'a').others == {'broken links': 2}
  assert len(_paths(root)) == 4
  (tmp_path / 'to_a').symlink_to(root / 'a')
  assert _paths(tmp_path / 'to_a') == _paths(root / 'a')


def test_a_pipe_is_no_image(tmp_path):
  _touch(tmp_path, 'a.png')
  os.mkfifo(tmp_path / 'b.png')
  (tmp_path / 'c.png').symlink_to(tmp_path / 'b.png')
  assert _paths(tmp_path) == ['a.png']
  assert sum(find_in(tmp_path).others.values()) == 2


def test_names_of_any_bytes_are_found(tmp_path):
  name = os.fsdecode(b'caf\xe9\n.png')
  try:
    _touch(tmp_path, name)
  except OSError:
    pytest.skip('this file system takes UTF-8 alone')
  assert _paths(tmp_path) == [name]
