"""Programs that compile in threads."""

import threading

import jax.numpy as jnp
import pytest

from jaxvision.training import runtime
from jaxvision.training.compiler import Compiler

ONES = jnp.ones(3)


def double(x):
  return 2 * x


def triple(x):
  return 3 * x


class HeldOptions:
  """Compiler options that are there once so many threads have asked for them."""

  def __init__(self, threads):
    self._all_there = threading.Barrier(threads)

  def __call__(self):
    self._all_there.wait(timeout=60)


def test_programs_compile_side_by_side(monkeypatch):
  # Neither has its options before the other one is compiling.
  monkeypatch.setattr(runtime, 'compiler_options', HeldOptions(2))
  compiler = Compiler()
  started = [compiler.start(function, ONES) for function in (double, triple)]
  assert compiler.under_way == 2
  assert [compiler.wait(program)(ONES).tolist() for program in started] == [
    [2, 2, 2],
    [3, 3, 3],
  ]
  assert compiler.programs == 2
  assert compiler.under_way == 0
  assert compiler.seconds > 0


def test_a_program_that_nobody_waits_for_does_not_hold_up_another(monkeypatch):
  gate, options = threading.Event(), runtime.compiler_options
  monkeypatch.setattr(runtime, 'compiler_options', lambda: gate.wait(60) and options())
  compiler = Compiler()
  later = compiler.start(double, ONES)
  monkeypatch.setattr(runtime, 'compiler_options', options)
  assert compiler(triple, ONES)(ONES).tolist() == [3, 3, 3]
  compiler.check()
  assert compiler.under_way == 1
  gate.set()
  compiler.wait_for_all()
  assert compiler.under_way == 0
  assert later.result()(ONES).tolist() == [2, 2, 2]


def test_a_kept_program_is_compiled_once():
  compiler = Compiler()
  one, two = (compiler.start(double, ONES, key='double') for _ in range(2))
  assert one is two
  assert compiler.wait(one) is compiler(double, ONES, key='double')
  assert compiler.programs == 1
  compiler(double, jnp.ones(4), key='double')
  assert compiler.programs == 2


def test_a_failure_that_nobody_waits_for_is_raised_by_check(monkeypatch):
  monkeypatch.setattr(runtime, 'compiler_options', lambda: {'xla_no_such_option': '1'})
  compiler = Compiler()
  program = compiler.start(double, ONES)
  with pytest.raises(Exception, match='xla_no_such_option'):
    program.result()
  assert program.failed
  with pytest.raises(Exception, match='xla_no_such_option'):
    compiler.check()
  compiler.check()  # told once
