"""The command line: exit codes, help, and how the process starts."""

import contextlib
import errno
import importlib.machinery
import importlib.util
import io
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


class _Full(io.StringIO):
  """A stream on a disk without room."""

  def write(self, text):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_of_standard_output_is_not_that_of_the_workdir(
  call, capsys, monkeypatch
):
  monkeypatch.setattr('sys.stdout', _Full())
  monkeypatch.setattr(command_line, 'run', lambda arguments: print('words'))
  assert command_line.main([]) == 2
  told = capsys.readouterr().err
  assert told == 'error: standard output cannot be written: No space left on device\n'

  def write_a_file(arguments):
    with contextlib.suppress(OSError):
      print('words')
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(command_line, 'run', write_a_file)
  assert command_line.main([]) == 2
  assert 'No space left on device: the workdir' in capsys.readouterr().err


@pytest.mark.parametrize(('stream', 'code'), [('/dev/full', 2), ('closed pipe', 130)])
def test_standard_output_that_fails_late_is_told_without_a_traceback(stream, code):
  program = (
    'import sys; from jaxvision import main; '
    "main.run = lambda arguments: print('a word') or 0; sys.exit(main.main([]))"
  )
  if stream == 'closed pipe':
    reader, output = os.pipe()
    os.close(reader)
  else:
    output = os.open(stream, os.O_WRONLY)
  ended = subprocess.run(
    [sys.executable, '-c', program], stdout=output, stderr=subprocess.PIPE, text=True
  )
  os.close(output)
  assert ended.returncode == code
  assert ended.stderr.count('\n') == (1 if code == 2 else 0)


def test_ctrl_c_is_one_line_and_exit_code_130(capsys, monkeypatch):
  def interrupted(arguments):
    raise KeyboardInterrupt

  monkeypatch.setattr(command_line, 'run', interrupted)
  assert command_line.main([]) == 130
  assert capsys.readouterr().err == 'interrupted\n'


@pytest.mark.parametrize('code', [errno.EISDIR, errno.ENOTDIR, errno.EIO])
def test_what_the_disk_refuses_is_one_line(code):
  problem = command_line.disk_problem(OSError(code, os.strerror(code), 'summary.json'))
  assert problem.startswith(f'{os.strerror(code)}: summary.json')


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


@pytest.fixture
def without_handlers(monkeypatch):
  """`cli` leaves the signals of the process of the tests as they are."""
  for name in ('install', 'finish', 'hold', 'release'):
    monkeypatch.setattr(command_line.signals, name, lambda *_: None)


@pytest.mark.usefixtures('without_handlers')
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


@pytest.mark.usefixtures('without_handlers')
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


@pytest.mark.parametrize('set_by_user', [None, '0'])
@pytest.mark.parametrize('gpu_build', [False, True])
def test_the_log_of_xla_is_hidden_where_it_is_noise(
  monkeypatch, set_by_user, gpu_build
):
  level = 'TF_CPP_MIN_LOG_LEVEL'
  monkeypatch.setenv(level, set_by_user or '')  # so that it is restored
  if set_by_user is None:
    monkeypatch.delenv(level)
  found = importlib.machinery.ModuleSpec('jax_plugins', None) if gpu_build else None
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: found)
  command_line.hide_log_of_xla()
  assert os.environ.get(level) == (set_by_user or (None if gpu_build else '3'))
