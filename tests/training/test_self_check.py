"""The self-check of XLA:CPU, and what follows from its finding something wrong."""

import logging

import jax
import numpy as np
import pytest

from jaxvision.config import base_config
from jaxvision.errors import UserError
from jaxvision.training import runtime, self_check

FUSED, UNFUSED, DEFAULTS = runtime._CPU_OPTIONS
REDUCTIONS_OFF = runtime.reductions_off


@pytest.fixture(autouse=True)
def checked_anew(monkeypatch, no_warning_of_reductions):
  monkeypatch.setattr(runtime, 'reductions_off', REDUCTIONS_OFF)
  for cached in (runtime._checked_cpu_options, runtime._warn_once):
    cached.cache_clear()
  yield
  for cached in (runtime._checked_cpu_options, runtime._warn_once):
    cached.cache_clear()


def test_the_chosen_options_compute_right_numbers_here():
  options = runtime.compiler_options()
  assert options in runtime._CPU_OPTIONS
  assert self_check.check_cpu_reductions(options) == ()
  # Whatever is switched off is warned of, and nothing else.
  assert (runtime.reductions_off() is None) == (options == FUSED)


@pytest.mark.parametrize(
  ('index', 'wrong', 'name'),
  [
    (0, lambda y: np.where(np.arange(len(y)) < 9, 0, y), 'sum of squares of a product'),
    (1, lambda y: y * np.nan, 'sum over a product with a constant'),
    (2, np.nan_to_num, 'mean of NaN'),
  ],
)
def test_a_wrong_sum_is_named(index, wrong, name, monkeypatch):
  options, right = runtime.compiler_options(), self_check._run

  def run(*arguments):
    results = right(*arguments)
    results[index] = wrong(results[index])
    return results

  monkeypatch.setattr(self_check, '_run', run)
  assert self_check.check_cpu_reductions(options) == (name,)


def pretend(monkeypatch, wrong):
  """Lets the check find what `wrong` returns for the given options."""
  monkeypatch.setattr(self_check, 'check_cpu_reductions', wrong)


def test_fused_reductions_are_switched_off_where_they_are_wrong(monkeypatch, caplog):
  pretend(monkeypatch, lambda options: () if options == UNFUSED else ('sum of x',))
  assert runtime.compiler_options() == UNFUSED
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setattr(logging.getLogger('jaxvision'), 'propagate', True)
  with caplog.at_level('WARNING', logger='jaxvision'):
    runtime.start(base_config())
    runtime.start(base_config())  # the second run of a process does not repeat it
  (warning,) = caplog.messages
  assert 'fused reductions wrongly on a CPU (sum of x)' in warning
  assert '\n' not in warning


def test_training_is_refused_where_every_option_is_wrong(monkeypatch):
  pretend(monkeypatch, lambda options: ('sum of x', 'sum of y'))
  with pytest.raises(
    UserError, match=r'wrong numbers on this CPU \(sum of x, sum of y'
  ):
    runtime.compiler_options()


def test_a_version_of_xla_without_the_options_keeps_its_defaults(monkeypatch):
  def unknown(options):
    if options is not None:
      raise jax.errors.JaxRuntimeError('No such compile option')
    return ()

  pretend(monkeypatch, unknown)
  assert runtime.compiler_options() is None
  assert runtime.reductions_off() is None


def test_xla_refuses_an_option_that_it_does_not_know():
  with pytest.raises(jax.errors.JaxRuntimeError):
    self_check.check_cpu_reductions({'xla_cpu_no_such_option': 'true'})
