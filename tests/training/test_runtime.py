"""What a run finds out about its machine."""

import importlib.util
import os
import subprocess

import jax
import pytest

from jaxvision.config import load
from jaxvision.errors import UserError
from jaxvision.training import runtime

CONFIG = 'configs/digits_cnn.py'


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


@pytest.mark.parametrize(
  ('option', 'value'),
  [
    ('jax_enable_x64', True),
    ('jax_disable_jit', True),
    ('jax_numpy_rank_promotion', 'raise'),
    ('jax_numpy_dtype_promotion', 'strict'),
    ('jax_transfer_guard', 'disallow'),
  ],
)
def test_settings_of_other_projects_are_named(option, value):
  runtime.check_environment()
  before = getattr(jax.config, option)
  jax.config.update(option, value)
  try:
    with pytest.raises(UserError, match=option.upper()) as error:
      runtime.start(load(CONFIG))
  finally:
    jax.config.update(option, before)
  assert len(str(error.value).splitlines()) == 1
  runtime.check_environment()


@pytest.mark.parametrize('error', [RuntimeError('none\nat all'), AssertionError()])
def test_backend_that_does_not_start_is_one_line(error, monkeypatch):
  def devices():
    raise error

  monkeypatch.setattr(jax, 'devices', devices)
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  with pytest.raises(UserError, match='JAX_PLATFORMS=cuda') as told:
    runtime.check_environment()
  assert len(str(told.value).splitlines()) == 1


def test_command_on_a_backend_that_is_not_there_is_one_line(command):
  process = command('summary', f'--config={CONFIG}', JAX_PLATFORMS='cuda')
  output, _ = process.communicate(timeout=120)
  if process.returncode == 0:
    pytest.skip('there is a GPU here')
  assert process.returncode == 2, output
  assert output.splitlines()[-1].startswith('error: JAX cannot start on')
  assert 'Traceback' not in output
