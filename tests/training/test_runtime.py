"""What a run says of its machine, and the log that it leaves."""

import importlib.util
import os
import subprocess

import jax
import pytest

from jaxvision.training import runtime
from jaxvision.training.logging import MetricLog, last_epoch, read_history


def test_a_gpu_build_without_a_gpu_is_warned_of(monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  assert runtime.missing_accelerator() is None  # this build has no GPU in it
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: object() if name == 'jax_cuda13_plugin' else find(name),
  )
  assert 'finds no GPU' in runtime.missing_accelerator()
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')  # meant: no warning
  assert runtime.missing_accelerator() is None


def test_deterministic_adds_to_the_flags_of_xla(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=/dev/null')
  runtime.configure(deterministic=False)
  assert os.environ['XLA_FLAGS'] == '--xla_dump_to=/dev/null'
  for _ in range(2):
    runtime.configure(deterministic=True)
  assert os.environ['XLA_FLAGS'].split() == [
    '--xla_dump_to=/dev/null',
    '--xla_gpu_deterministic_ops=true',
  ]


def test_facts_name_the_machine_and_the_commit(pytestconfig):
  facts = runtime.facts()
  assert facts['backend'] == 'cpu'
  assert facts['device_count'] == jax.device_count()
  assert facts['versions']['jax'] == jax.__version__
  head = subprocess.run(
    ['git', 'rev-parse', 'HEAD'],
    cwd=pytestconfig.rootpath,
    capture_output=True,
    text=True,
    check=False,
  ).stdout.strip()
  assert (facts['git_commit'] or '').removesuffix('+dirty') == head
  assert runtime.peak_memory_bytes() > 10**7
  assert runtime.memory_bytes() > runtime.peak_memory_bytes()


def test_log_drops_what_comes_again_and_what_was_cut_off(tmp_path):
  log = MetricLog(tmp_path)
  for step in (10, 20, 30):
    log.write(step, 'train', {'loss': 1 / step, 'accuracy': 0.5})
  log.close()
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 40, "spl')  # as a kill leaves it
  assert [p['step'] for p in read_history(tmp_path / 'metrics.jsonl')] == [10, 20, 30]
  log = MetricLog(tmp_path, step=20)
  log.write(30, 'train', {'loss': float('nan'), 'accuracy': 0.6})
  log.close()
  history = read_history(tmp_path / 'metrics.jsonl')
  assert [p['step'] for p in history] == [10, 20, 30]
  assert history[-1]['loss'] is None


def test_training_numbers_of_a_summary_are_of_the_last_epoch():
  points = [
    {'step': step, 'split': 'train', 'loss': loss, 'accuracy': accuracy}
    for step, loss, accuracy in [(10, 4, 0.1), (20, 2, 0.2), (30, 1, 0.4), (35, 0, 1.0)]
  ]
  names = ('loss', 'accuracy')
  found = last_epoch(points, names, total_steps=35, steps_per_epoch=15)
  assert found['loss'] == pytest.approx((10 * 1 + 5 * 0) / 15)
  assert found['accuracy'] == pytest.approx((10 * 0.4 + 5 * 1.0) / 15)
  # Log points further apart than an epoch: the last one is what there is.
  assert last_epoch(points[:1], names, 10, 2)['loss'] == 4
  assert last_epoch([], names, 10, 2) == {'loss': None, 'accuracy': None}
