"""Runs in several processes on this machine, for tests."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


class Runs:
  """Trains with the command line, in one process or several of one device each."""

  def __init__(self, folder):
    self.folder = folder

  def command(self, name, count, *options):
    """Returns a command line that trains digits for some steps."""
    train = [
      'train',
      f'--config={ROOT / "configs" / "digits_cnn.py"}',
      *('--config.steps=12', '--config.log_every_steps=4', '--config.report=False'),
      f'--workdir={self.folder / name}',
      *options,
    ]
    launch = ['launch', f'--processes={count}', '--devices-per-process=1', '--']
    return [
      *(sys.executable, '-m', 'jaxvision.main'),
      *(launch if count > 1 else []),
      *train,
    ]

  def train(self, name, count, *options, devices=1):
    """Trains; returns its exit code and what it printed."""
    environ = {
      **os.environ,
      'JAX_NUM_CPU_DEVICES': str(devices),
      'PYTHONPATH': str(ROOT),
    }
    found = subprocess.run(
      self.command(name, count, *options),
      env=environ,
      capture_output=True,
      text=True,
      timeout=300,
    )
    return found.returncode, found.stdout + found.stderr

  def call(self, count, *arguments):
    """Runs a command; returns its exit code and what it printed, without prefixes."""
    launch = ['launch', f'--processes={count}', '--devices-per-process=1', '--']
    found = subprocess.run(
      [
        *(sys.executable, '-m', 'jaxvision.main'),
        *(launch if count > 1 else []),
        *arguments,
      ],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
      timeout=300,
    )
    lines = (found.stdout + found.stderr).splitlines()
    return found.returncode, [re.sub(r'^\[\d\] ', '', line) for line in lines]

  def saved(self, name):
    """Returns the steps that have a whole checkpoint."""
    names = [path.name for path in (self.folder / name / 'checkpoints').glob('*')]
    return [int(name) for name in names if name.isdigit()]

  def points(self, name):
    """Returns the log points of a run, without what depends on time."""
    lines = (self.folder / name / 'metrics.jsonl').read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in p.items() if k != 'images_per_second'} for p in found]


def check_same(found, wanted, rtol=1e-5):
  assert [p.keys() for p in found] == [p.keys() for p in wanted]
  for mine, theirs in zip(found, wanted):
    for name, value in theirs.items():
      assert mine[name] == (
        value if isinstance(value, str) else pytest.approx(value, rtol)
      )


def started(runs, name, *options):
  """Starts two processes that train for long; returns (the launcher, theirs)."""
  environ = {**os.environ, 'PYTHONPATH': str(ROOT)}
  launcher = subprocess.Popen(
    runs.command(name, 2, '--config.steps=100000', *options),
    env=environ,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  printed = []
  for line in launcher.stdout:
    printed.append(line)
    if re.match(r'\[0\] step +\d+/', line):
      break
  return launcher, children_of(launcher), printed


def children_of(launcher):
  """Returns number -> process id of those that a launcher has started and that run."""
  children = {}
  for path in Path('/proc').glob('[0-9]*'):
    try:
      text = (path / 'environ').read_bytes()
      state, parent = (path / 'stat').read_text().rpartition(')')[2].split()[:2]
    except OSError:
      continue
    if int(parent) == launcher.pid and state != 'Z' and b'JAX_PROCESS_ID=' in text:
      number = text.partition(b'JAX_PROCESS_ID=')[2].split(b'\0')[0]
      children[int(number)] = int(path.name)
  return children


def kill_at_random(runs, name, count, kills, seed, *options):
  """Trains under `launch --restarts` and kills a process of those, at random, again and again.

  Each time after at least one new checkpoint. Returns (exit code, kills, what was printed).
  """
  command = runs.command(name, count, *options)
  command.insert(command.index('--'), f'--restarts={kills}')
  random, printed = np.random.default_rng(seed), []
  launcher = subprocess.Popen(
    command,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  reader = threading.Thread(target=lambda: printed.extend(launcher.stdout))
  reader.start()
  killed, before = 0, -1
  while launcher.poll() is None and killed < kills:
    saved = max(runs.saved(name), default=-1)
    if saved > before:
      time.sleep(random.uniform(0, 0.3))
      children = children_of(launcher)
      if len(children) == count:
        os.kill(children[int(random.integers(count))], signal.SIGKILL)
        killed, before = killed + 1, saved
    time.sleep(0.01)
  code = launcher.wait(600)
  reader.join()
  return code, killed, ''.join(printed)
