"""The command line: exit codes, help, and how the process starts."""

import os
import subprocess
import sys

import pytest
from command_line import DIGITS, assert_refused

from jaxvision import main as command_line


def test_missing_or_broken_config_file_is_a_usage_error(call, tmp_path):
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


def test_unwritable_workdir_and_full_disk(call, tmp_path):
  # No directory can be made below a device, and /dev/full is a disk without room.
  assert_refused(call(DIGITS, '--workdir=/proc/run'), '/proc')
  problem = OSError(28, 'No space left on device', 'metrics.jsonl')
  assert 'No space left' in command_line.disk_problem(problem)
  wrapped = ValueError('async save failed')
  wrapped.__cause__ = problem
  assert 'No space left' in command_line.disk_problem(wrapped)
  wrapped = ValueError("Failed to write: File too large [os_error_code='27']")
  assert 'make room' in command_line.disk_problem(wrapped)
  assert command_line.disk_problem(ValueError('a fault of ours')) is None


def test_import_loads_no_heavy_package():
  check = (
    'import sys, jaxvision, jaxvision.main; '
    "print([m for m in ('jax', 'tensorflow', 'matplotlib', 'grain', 'sklearn') "
    'if m in sys.modules])'
  )
  output = subprocess.run(
    [sys.executable, '-c', check], capture_output=True, text=True, check=True
  ).stdout
  assert output.strip() == '[]'


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
