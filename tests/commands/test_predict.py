"""The command `predict`."""

import json

import numpy as np
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
