"""The command line: what it prints, what it writes, how it exits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision import main as command_line

DIGITS = '--config=configs/digits_cnn.py'


@pytest.fixture
def call(capsys, monkeypatch, request):
  """Runs the command line in this process: (exit code, output, errors)."""
  monkeypatch.chdir(request.config.rootpath)

  def run(*arguments):
    code = command_line.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err

  return run


def assert_refused(result, *wanted):
  code, _, errors = result
  assert code == 2, errors
  # What was begun, such as preparing a set, may be told before; the error is one line.
  *before, line = errors.strip().splitlines()
  assert line.startswith('error: ')
  assert not any('error' in other or 'Traceback' in other for other in before), errors
  for text in wanted:
    assert text in line


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished short run on digits."""
  from jaxvision import commands, config

  workdir = tmp_path_factory.mktemp('finished') / 'run'
  loaded = config.load(
    'configs/digits_cnn.py', ['steps=200', 'parallel.data=1', 'report=False']
  )
  commands.train(loaded, workdir, quiet=True)
  return workdir


@pytest.fixture
def pictures(tmp_path):
  """A folder of test digits as PNG files, and the labels."""
  from jaxvision import data

  test = data.load('digits').splits['test']
  folder = tmp_path / 'pictures'
  folder.mkdir()
  for i in range(20):
    Image.fromarray(test.images[i, :, :, 0]).save(folder / f'{i:02}.png')
  return folder, test.labels[:20]


@pytest.mark.parametrize(
  ('overrides', 'wanted'),
  [
    (['--config.batch_sise=3'], ['batch_sise', 'did you mean "batch_size"']),
    (['--config.batch_size=many'], ['batch_size', 'type int', "'many'"]),
    (['--config.batch_size=-4'], ['batch_size must be at least 1']),
    (['--config.batch_size=100000'], ['100000 is larger than', '1438 images']),
    (['--config.optimizer.name=sdg'], ['sdg', 'did you mean "sgd"']),
    (['--config.model.name=resnet'], ['resnet', 'did you mean "resnet']),
    (['--config.model.widht=3'], ['widht']),
    (['--config.dtype=float16'], ['dtype must be one of float32, bfloat16']),
    (['--config.data.name=cifar11', '--config.data.dir=NOWHERE'], ['cifar11']),
    (['--config.data.name=folder'], ['--config.data.root=DIR']),
    (['--config.data.name=folder', '--config.data.root=NOWHERE'], ['NOWHERE']),
    (['--config.augment.crop_padding=9'], ['crop_padding']),
    (['--confg.seed=1'], ['--confg.seed=1']),
    (['--config.parallel.data=64'], ['parallel.data=64']),
  ],
)
def test_a_mistake_is_one_line_and_exit_2(call, tmp_path, overrides, wanted):
  workdir = tmp_path / 'run'
  assert_refused(call(DIGITS, f'--workdir={workdir}', *overrides), *wanted)
  assert not workdir.exists()


def test_config_file_that_is_missing_raises_or_returns_nothing(call, tmp_path):
  assert_refused(call('--config=configs/digit_cnn.py'), 'is not there', 'digits_cnn.py')
  for text, wanted in [
    ('def get_config():\n  return 1 / 0\n', 'bad.py:2: ZeroDivisionError'),
    ('def get_config(:\n', 'bad.py:1: SyntaxError'),
    ('x = 3\n', 'no function get_config()'),
    ('def get_config():\n  return 3\n', 'must return base_config()'),
    (
      'from jaxvision.config import base_config\n'
      'def get_config():\n'
      '  config = base_config()\n'
      '  config.batchsize = 3\n'
      '  return config\n',
      'bad.py:4: there is no field "batchsize", did you mean "batch_size"',
    ),
    (
      'from jaxvision.config import base_config\n'
      'def get_config():\n'
      '  config = base_config()\n'
      '  config.batch_size = 3.5\n'
      '  return config\n',
      'bad.py:4: TypeError',
    ),
  ]:
    path = tmp_path / 'bad.py'
    path.write_text(text)
    assert_refused(call(f'--config={path}'), wanted)


def test_unknown_command_and_missing_arguments(call):
  assert_refused(call('trian', DIGITS), 'no command "trian"', 'did you mean "train"')
  assert_refused(call('train'), '--config=FILE')
  assert_refused(call('predict'), '--workdir=DIR')
  assert_refused(call('prepare'), 'name the TFDS sets')


@pytest.mark.parametrize('command', ['train', 'eval', 'predict', 'summary', 'prepare'])
def test_each_command_has_help(call, capsys, command):
  with pytest.raises(SystemExit) as exit_:
    call(command, '--help')
  assert exit_.value.code == 0
  assert '--config.KEY=VALUE' in capsys.readouterr().out


def test_help_config_lists_every_field(call):
  from jaxvision.config import FIELDS, walk

  code, output, _ = call('train', '--help-config')
  assert code == 0
  for name, _ in walk(FIELDS):
    assert f'{name} = ' in output


def test_workdir_of_another_run_is_refused_and_overwrite_replaces_it(call, tmp_path):
  workdir = tmp_path / 'run'
  short = [
    DIGITS,
    f'--workdir={workdir}',
    '--config.steps=2',
    '--config.parallel.data=1',
    '--config.report=False',
  ]
  assert call(*short)[0] == 0
  before = (workdir / 'config.json').read_text()
  other = [*short, '--config.seed=1', '--config.model.dropout=0.3']
  assert_refused(
    call(*other), 'seed: 0 -> 1', 'model.dropout', '--workdir=DIR', '--overwrite'
  )
  assert (workdir / 'config.json').read_text() == before
  assert call(*other, '--overwrite')[0] == 0
  assert json.loads((workdir / 'summary.json').read_text())['seed'] == 1


def test_a_folder_of_other_things_is_not_touched(call, tmp_path):
  (tmp_path / 'thesis.tex').write_text('years of work')
  for extra in ([], ['--overwrite']):
    assert_refused(call(DIGITS, f'--workdir={tmp_path}', *extra), 'thesis.tex')
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']
  assert_refused(call(DIGITS, f'--workdir={tmp_path / "thesis.tex"}'), 'is a file')


def test_unwritable_workdir_and_full_disk(call, tmp_path):
  # No directory can be made below a device, and /dev/full is a disk without room.
  assert_refused(call(DIGITS, '--workdir=/proc/run'), '/proc')
  problem = OSError(28, 'No space left on device', 'metrics.jsonl')
  assert 'No space left' in command_line.disk_problem(problem)
  wrapped = ValueError('async save failed')
  wrapped.__cause__ = problem
  assert 'No space left' in command_line.disk_problem(wrapped)
  assert command_line.disk_problem(ValueError('a fault of ours')) is None


def test_diverged_training_exits_3(call, tmp_path):
  code, _, errors = call(
    DIGITS,
    f'--workdir={tmp_path / "run"}',
    '--config.optimizer.learning_rate=1e30',
    '--config.steps=30',
    '--config.parallel.data=1',
  )
  assert code == 3
  assert 'diverged' in errors
  assert 'Traceback' not in errors


def test_eval_tells_the_accuracy_of_the_summary(call, finished):
  code, output, _ = call('eval', f'--workdir={finished}')
  assert code == 0
  accuracy = json.loads((finished / 'summary.json').read_text())['test_accuracy']
  assert f'accuracy {accuracy:.2%}' in output
  assert call('eval', f'--workdir={finished}', '--split=train')[0] == 0
  assert call('eval', f'--workdir={finished}', '--checkpoint=best')[0] == 0


def test_eval_mistakes(call, finished, tmp_path):
  assert_refused(call('eval', f'--workdir={tmp_path}'), 'is no run')
  assert_refused(call('eval', f'--workdir={tmp_path / "no"}'), 'is no run')
  assert_refused(call('eval', f'--workdir={finished}', '--split=tset'), 'tset')
  assert_refused(call('eval', f'--workdir={finished}', '--checkpoint=7'), '"7"')
  assert_refused(
    call('eval', f'--workdir={finished}', '--config.model.name=resnet20'),
    'only data.*, eval_batch_size',
  )


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


def test_predict_takes_any_size_and_mode(call, finished, pictures, tmp_path):
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


def test_predict_mistakes(call, finished, tmp_path):
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


def test_summary_of_a_config_and_of_a_run(call, finished):
  code, output, _ = call('summary', DIGITS)
  assert code == 0
  params = json.loads((finished / 'summary.json').read_text())['params']
  assert f'{params:,}' in output
  assert 'dropout=0.2' in output
  assert (
    call('summary', f'--workdir={finished}')[1].splitlines()[:3]
    == (output.splitlines()[:3])
  )


def test_training_starts_anew_once_for_huge_pages(monkeypatch, capsys):
  started = []
  arguments = ['train', '--config=missing.py']
  monkeypatch.setattr('os.execv', lambda path, arguments: started.append(arguments))
  monkeypatch.setattr('sys.argv', ['jaxvision', *arguments])
  monkeypatch.setattr('sys.orig_argv', ['python', '-m', 'jaxvision.main', *arguments])
  monkeypatch.setattr(command_line, '_huge_pages_on_request', lambda: True)
  monkeypatch.setenv('GLIBC_TUNABLES', 'glibc.malloc.arena_max=2')
  assert command_line.cli() == 2
  assert started == [[sys.executable, '-m', 'jaxvision.main', *arguments]]
  assert os.environ['GLIBC_TUNABLES'] == (
    'glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1'
  )
  assert command_line.cli() == 2
  assert len(started) == 1
  assert 'missing.py' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'on_request', 'code'),
  [
    (['--version'], True, 0),
    (['train', '--help'], True, 0),
    (['predict'], True, 2),
    (['train', '--config=missing.py'], False, 2),
  ],
)
def test_nothing_else_starts_anew(arguments, on_request, code, monkeypatch, capsys):
  monkeypatch.setattr('os.execv', lambda *_: pytest.fail('started anew'))
  monkeypatch.setattr('sys.argv', ['jaxvision', *arguments])
  monkeypatch.setattr(command_line, '_huge_pages_on_request', lambda: on_request)
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  with pytest.raises(SystemExit) as stop:
    sys.exit(command_line.cli())
  assert stop.value.code == code
  assert capsys.readouterr() != ('', '')


def test_importing_is_light():
  check = (
    'import sys, jaxvision, jaxvision.main; '
    "print([m for m in ('jax', 'tensorflow', 'matplotlib', 'grain', 'sklearn') "
    'if m in sys.modules])'
  )
  output = subprocess.run(
    [sys.executable, '-c', check], capture_output=True, text=True, check=True
  ).stdout
  assert output.strip() == '[]'


def test_training_imports_neither_tensorflow_nor_pytorch(tmp_path):
  check = (
    'import sys; from jaxvision.main import main; '
    f"code = main(['{DIGITS}', '--config.steps=2', '--workdir={tmp_path / 'run'}']); "
    "sys.exit(code or {'tensorflow', 'torch'} & set(sys.modules) or 0)"
  )
  subprocess.run([sys.executable, '-c', check], check=True, stdout=subprocess.DEVNULL)


def test_benchmark_prints_what_it_measured_and_leaves_no_run(call):
  options = (
    DIGITS,
    '--steps=12',
    '--config.batch_size=8',
    '--config.model.name=small_filters_cnn',
    '--config.model.features=(2,2,2)',
    '--config.parallel.data=1',
    '--config.name=measured',
  )
  code, output, errors = call('benchmark', *options)
  assert code == 0, errors
  assert 'images/s over 12 steps' in output
  assert 'of the peak' in output
  code, output, _ = call('benchmark', *options, '--json')
  assert code == 0
  assert json.loads(output)['steps'] == 12
  assert not Path('runs/measured').exists()


@pytest.mark.parametrize(
  ('arguments', 'wanted'),
  [
    ([], 'say what to measure with --config=FILE'),
    ([DIGITS, '--steps=0'], '--steps must be at least 1'),
    ([DIGITS, '--config.batch_size=9999'], 'batch_size 9999'),
  ],
)
def test_benchmark_refuses_in_one_line(call, arguments, wanted):
  assert_refused(call('benchmark', *arguments), wanted)
