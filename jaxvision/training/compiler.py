"""Programs compiled ahead, in threads, once per shape.

Compile time is measured apart from the time of steps, and nothing compiles in the middle
of a run. Tracing holds Python's lock and happens in the thread that asks; XLA does not,
so that programs which are started one after the other compile side by side.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from jaxvision.training import runtime

_AT_A_TIME = 4  # of which XLA may take several threads each


class Program:
  """A program that is being compiled.

  Args:
    name: of its function.
    lowered: what is compiled.
    pool: of the threads that compile.
    seconds: that tracing and lowering took.

  Attributes:
    name: of its function.
    seconds: that it took to trace, lower and compile, or as yet.
  """

  def __init__(self, name: str, lowered: Any, pool: ThreadPoolExecutor, seconds: float):
    self.name, self.seconds = name, seconds
    self._compiled: Future[Callable] = pool.submit(self._compile, lowered)

  def _compile(self, lowered: Any) -> Callable:
    begun = time.perf_counter()
    try:
      return lowered.compile(compiler_options=runtime.compiler_options())
    finally:
      self.seconds += time.perf_counter() - begun

  @property
  def failed(self) -> bool:
    """Whether it could not be compiled, as far as is known by now."""
    return self._compiled.done() and self._compiled.exception() is not None

  def result(self) -> Callable:
    """Waits for the compiled program and returns it; raises what XLA ran into."""
    return self._compiled.result()


class Compiler:
  """Compiles programs, keeps those that runs share, and measures the time.

  Attributes:
    seconds: in which somebody waited for a program.
    programs: that it was asked for, without those it had kept.
  """

  def __init__(self):
    self.seconds = 0.0
    self.programs = 0
    self._kept: dict[Any, Program] = {}
    self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix='compile')
    self._under_way: list[Program] = []

  @property
  def under_way(self) -> int:
    """The number of programs that nobody has waited for yet."""
    return len(self._under_way)

  def start(
    self, function: Callable, *args: Any, key: Any = None, **jit: Any
  ) -> Program:
    """Starts to compile `function` for the shapes and shardings of `args`.

    Args:
      function: pure.
      *args: arrays or `jax.ShapeDtypeStruct`.
      key: equal for functions that compute the same; None: the program is not kept.
      **jit: options of `jax.jit`.

    Returns:
      The program, for `wait`.
    """
    if key is not None:
      key = (key, function.__name__, _abstract(args))
      if key in self._kept:
        return self._kept[key]
    begun = time.perf_counter()
    lowered = jax.jit(function, **jit).lower(*args)
    seconds = time.perf_counter() - begun
    program = Program(function.__name__, lowered, self._pool, seconds)
    self.seconds += seconds
    self.programs += 1
    self._under_way.append(program)
    if key is not None:
      self._kept[key] = program
    return program

  def wait(self, program: Program) -> Callable:
    """Returns what a program was compiled to, once it is there."""
    begun = time.perf_counter()
    try:
      return program.result()
    finally:
      self.seconds += time.perf_counter() - begun
      if program in self._under_way:
        self._under_way.remove(program)

  def wait_for_all(self) -> None:
    """Waits for every program that was started."""
    for program in list(self._under_way):
      self.wait(program)

  def check(self) -> None:
    """Raises what XLA ran into with a program that nobody has waited for yet."""
    for program in [program for program in self._under_way if program.failed]:
      self.wait(program)

  def __call__(
    self, function: Callable, *args: Any, key: Any = None, **jit: Any
  ) -> Callable:
    """Returns `function` compiled; takes what `start` takes."""
    return self.wait(self.start(function, *args, key=key, **jit))


def _abstract(args: Any) -> Any:
  leaves, structure = jax.tree.flatten(args)
  kinds = tuple(
    (leaf.shape, str(leaf.dtype), str(getattr(leaf, 'sharding', None)))
    for leaf in leaves
  )
  return str(structure), kinds
