"""`jaxvision launch`: variables, prefixes, exit codes, signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import assert_refused

from jaxvision.commands import launch
from jaxvision.commands.launch import environment, program_of
from jaxvision.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def launched(*arguments, **options):
  return subprocess.run(
    [sys.executable, '-m', 'jaxvision.main', 'launch', *arguments],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
    **options,
  )


def test_each_process_has_its_number_and_its_devices(monkeypatch):
  monkeypatch.setattr(launch, '_gpus', lambda: 8)
  environ = {'HOME': '/home', 'CUDA_VISIBLE_DEVICES': '3,5,6,7'}
  own = environment(environ, 1, 2, 1234, 2)
  assert own['JAX_PROCESS_ID'] == '1'
  assert own['JAX_NUM_PROCESSES'] == '2'
  assert own['JAX_COORDINATOR_ADDRESS'] == '127.0.0.1:1234'
  assert own['CUDA_VISIBLE_DEVICES'] == '6,7'
  assert own['HOME'] == '/home'
  assert environment({}, 1, 2, 1234, 1)['CUDA_VISIBLE_DEVICES'] == '1'
  assert environment({}, 1, 2, 1234, 0)['CUDA_VISIBLE_DEVICES'] == '4,5,6,7'
  assert environment(environ, 1, 4, 1234, 0)['CUDA_VISIBLE_DEVICES'] == '5'
  on_cpu = environment({'JAX_PLATFORMS': 'cpu'}, 0, 2, 1234, 4)
  assert on_cpu['JAX_NUM_CPU_DEVICES'] == '4'
  with pytest.raises(UserError, match='want more than the 4'):
    environment(environ, 0, 3, 1234, 2)
  with pytest.raises(UserError, match='9 processes of 1 devices want more than the 8'):
    environment({}, 0, 9, 1234, 0)
  monkeypatch.setattr(launch, '_gpus', lambda: 0)
  assert 'CUDA_VISIBLE_DEVICES' not in environment({}, 1, 2, 1234, 0)


def test_a_command_a_file_or_a_program():
  ours = [sys.executable, '-m', 'jaxvision.main']
  assert program_of(['train', '--config=x.py'], True) == [
    *ours,
    'train',
    '--config=x.py',
  ]
  assert program_of(['--config=x.py'], False) == [*ours, '--config=x.py']
  assert program_of(['mine.py', '-a'], False) == [sys.executable, 'mine.py', '-a']
  assert program_of(['echo', 'a'], False) == ['echo', 'a']


def test_lines_have_the_number_of_their_process(tmp_path):
  script = tmp_path / 'mine.py'
  script.write_text(
    'import os, sys\n'
    'print("number", os.environ["JAX_PROCESS_ID"])\n'
    'print("of", os.environ["JAX_NUM_PROCESSES"], file=sys.stderr)\n'
  )
  found = launched('--processes=3', '--', str(script))
  assert found.returncode == 0
  assert sorted(found.stdout.splitlines()) == [f'[{i}] number {i}' for i in range(3)]
  assert sorted(found.stderr.splitlines()) == [f'[{i}] of 3' for i in range(3)]


def test_the_code_is_that_of_the_first_that_failed(tmp_path):
  script = tmp_path / 'mine.py'
  script.write_text(
    'import os, sys, time\nif os.environ["JAX_PROCESS_ID"] == "1":\n  sys.exit(7)\n'
  )
  assert launched('--processes=2', '--', str(script)).returncode == 7


@pytest.mark.parametrize(
  ('code', 'restarts', 'begun', 'returned'),
  [(7, 3, 3, 0), (7, 1, 2, 7), (2, 3, 1, 2), (3, 3, 1, 3), (4, 3, 1, 4)],
)
def test_all_are_started_again_where_it_helps(
  tmp_path, code, restarts, begun, returned
):
  # Process 1 fails in the first two attempts.
  script = tmp_path / 'mine.py'
  script.write_text(
    'import os, pathlib, sys\n'
    'number = os.environ["JAX_PROCESS_ID"]\n'
    'attempts = len(list(pathlib.Path().glob(f"{number}-*")))\n'
    'pathlib.Path(f"{number}-{attempts}").touch()\n'
    f'sys.exit({code} if number == "1" and attempts < 2 else 0)\n'
  )
  found = launched(
    '--processes=2', f'--restarts={restarts}', '--', str(script), cwd=tmp_path
  )
  assert found.returncode == returned, found.stderr
  assert len(list(tmp_path.glob('1-*'))) == begun
  assert found.stderr.count(f'ended with exit code {code}; all are started again') == (
    begun - 1
  )


def test_a_signal_reaches_every_process(tmp_path):
  script = tmp_path / 'mine.py'
  script.write_text(
    'import signal, sys, time\n'
    'signal.signal(signal.SIGTERM, lambda *_: (print("heard"), sys.exit(4)))\n'
    'print("ready", flush=True)\n'
    'time.sleep(60)\n'
  )
  launcher = subprocess.Popen(
    [
      sys.executable,
      '-m',
      'jaxvision.main',
      'launch',
      '--processes=2',
      '--',
      str(script),
    ],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert {launcher.stdout.readline() for _ in range(2)} == {
    '[0] ready\n',
    '[1] ready\n',
  }
  launcher.send_signal(signal.SIGTERM)
  printed, _ = launcher.communicate(timeout=30)
  assert launcher.returncode == 4
  assert sorted(printed.splitlines()) == ['[0] heard', '[1] heard']


def test_mistakes_are_one_line(call):
  assert_refused(call('launch', '--processes=0', '--', 'train'), '--processes must be')
  assert_refused(call('launch', '--processes=2'), 'name the command to run')
  assert_refused(
    call('launch', '--processes=2', '--restarts=-1', '--', 'train'),
    '--restarts must be',
  )
  assert_refused(
    call('launch', '--processes=2', '--restarts=1', '--', 'train', '--overwrite'),
    'begin the run anew',
  )
  assert_refused(
    call('launch', '--processes=2', '--devices-per-process=-1', '--', 'train'),
    '--devices-per-process must be',
  )
  assert_refused(
    call('launch', '--processes=2', '--', 'no-such-program'), 'no-such-program'
  )
