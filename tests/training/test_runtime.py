"""What a run finds out about its machine."""

import importlib.util
import os
import subprocess

import jax

from jaxvision.training import runtime


def test_missing_accelerator_warns_of_a_gpu_build_without_a_gpu(monkeypatch):
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


def test_configure_deterministic_adds_one_xla_flag(monkeypatch):
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
