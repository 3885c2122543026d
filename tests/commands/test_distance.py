"""The command `distance` on folders of files; its numbers are tested in tests/metrics."""

import json
import os

import pytest
from PIL import Image


@pytest.fixture
def two_folders(tmp_path, pictures):
  folder, _ = pictures
  for i in range(20):
    target = tmp_path / f'half{i % 2}' / f'{i:02}.png'
    target.parent.mkdir(exist_ok=True)
    (folder / f'{i:02}.png').rename(target)
  return tmp_path / 'half0', tmp_path / 'half1'


def test_one_bad_photo_does_not_cost_the_others(call, finished, two_folders):
  first, second = two_folders
  arguments = ('distance', *two_folders, f'--features={finished}')
  os.mkfifo(first / '99.png')
  code, whole, _ = call(*arguments, '--json')
  assert code == 0
  (first / '00.png').unlink()
  (second / '19.png').unlink()
  code, expected, _ = call(*arguments, '--json')
  assert code == 0
  (first / '00.png').write_bytes(b'no image')
  (second / '19.png').write_bytes(b'no image')
  (second / '._01.png').write_bytes(b'no image')
  code, output, errors = call(*arguments, '--json')
  assert code == 2
  values = json.loads(output)
  told = values.pop('error')
  assert values == json.loads(expected) != json.loads(whole)
  assert [os.path.basename(line.split()[1]) for line in told] == ['00.png', '19.png']
  for message in told:
    assert f'error: {message}' in errors
  code, output, _ = call(*arguments)
  assert (code, len(output.splitlines())) == (2, 1)


def test_a_folder_of_bad_photos_has_no_distance(call, finished, two_folders):
  first, second = two_folders
  for path in sorted(first.iterdir())[1:]:
    path.write_bytes(b'no image')
  code, output, errors = call('distance', first, second, f'--features={finished}')
  assert (code, output) == (2, '')
  assert 'half0 has one image that can be read' in errors
  Image.new('L', (8, 8)).save(first / '02.png')
  code, output, _ = call('distance', first, second, f'--features={finished}')
  assert (code, len(output.splitlines())) == (2, 1)
