"""The command `predict`."""

import json
import os

import numpy as np
import pytest
from command_line import assert_refused
from PIL import Image


def test_predict_files_and_folders(call, finished, pictures):
  folder, labels = pictures
  code, output, _ = call('predict', f'--workdir={finished}', '--json', folder)
  assert code == 0
  rows = json.loads(output)
  assert [row['file'] for row in rows] == [
    str(folder / f'{i:02}.png') for i in range(20)
  ]
  assert all(len(row['predictions']) == 5 for row in rows)
  found = [int(row['predictions'][0]['class']) for row in rows]
  assert np.mean(found == labels) >= 0.9
  code, output, _ = call(
    'predict', f'--workdir={finished}', '--top=1', folder / '00.png'
  )
  assert code == 0
  assert output.startswith(f'{folder / "00.png"}: {found[0]} ')


def test_predict_resizes_and_converts_images(call, finished, pictures, tmp_path):
  folder, _ = pictures
  plain = Image.open(folder / '00.png')
  for name, image in {
    'large.jpg': plain.resize((80, 80)).convert('RGB'),
    'palette.gif': plain.convert('P'),
    'alpha.png': plain.convert('RGBA'),
  }.items():
    image.save(tmp_path / name)
    code, output, errors = call('predict', f'--workdir={finished}', tmp_path / name)
    assert code == 0, errors
    assert name in output


def test_one_bad_photo_does_not_cost_the_others(call, finished, pictures):
  folder, _ = pictures
  (folder / '00.png').write_bytes(b'no image')
  whole = (folder / '07.png').read_bytes()
  (folder / '07.png').write_bytes(whole[: len(whole) // 2])
  (folder / 'notes.txt').write_text('no image')
  (folder / '.hidden.png').write_text('no image')
  code, output, errors = call('predict', f'--workdir={finished}', folder)
  assert code == 2
  assert len(output.splitlines()) == 18
  assert f'{folder}: not used: 1 file (.txt 1)' in errors
  told = [line for line in errors.splitlines() if line.startswith('error: ')]
  assert len(told) == 2
  for name, line in zip(['00.png', '07.png'], told):
    assert name in line
  code, output, _ = call('predict', f'--workdir={finished}', '--json', folder)
  rows = json.loads(output)
  assert (code, len(rows)) == (2, 20)
  assert [i for i, row in enumerate(rows) if 'error' in row] == [0, 7]
  assert all(('predictions' in row) != ('error' in row) for row in rows)
  assert 'not an image' in rows[0]['error']


def test_pipes_are_not_waited_for(call, finished, pictures):
  folder, _ = pictures
  os.mkfifo(folder / 'pipe.png')
  code, output, _ = call('predict', f'--workdir={finished}', folder)
  assert (code, len(output.splitlines())) == (0, 20)
  code, _, errors = call('predict', f'--workdir={finished}', folder / 'pipe.png')
  assert code == 2
  assert 'pipe.png cannot be read: it is not a regular file' in errors


def test_names_are_printed_without_control_characters(call, finished, pictures):
  folder, _ = pictures
  names = [b'caf\xe9.png', b'a\x1b[2J\n.png']
  try:
    for number, name in enumerate(names):
      (folder / f'{number:02}.png').rename(folder / os.fsdecode(name))
  except OSError:
    pytest.skip('this file system takes UTF-8 alone')
  (folder / os.fsdecode(b'\xff.png')).write_bytes(b'no image')
  for option in ('--top=1', '--json'):
    code, output, errors = call('predict', f'--workdir={finished}', option, folder)
    assert code == 2
    for text in (output, errors):
      text.encode('utf-8')
      assert '\x1b' not in text
    assert len(output.splitlines()) == 20 or option == '--json'
    assert r'\xff.png' in errors
  assert str(folder / r'caf\xe9.png') in [row['file'] for row in json.loads(output)]


def test_predict_usage_errors(call, finished, tmp_path):
  run = f'--workdir={finished}'
  assert_refused(call('predict', run), 'name the image files')
  assert_refused(call('predict', run, tmp_path / 'no.png'), 'no.png is not there')
  text = tmp_path / 'text.png'
  text.write_text('no image')
  assert_refused(call('predict', run, text), 'text.png')
  folder = tmp_path / 'folder'
  folder.mkdir()
  assert_refused(call('predict', run, folder), 'no image in')
  assert_refused(call('predict', run, '--top=0', text), '--top')
  assert_refused(call('predict', f'--workdir={folder}', text), 'is no run')
