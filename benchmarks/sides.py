"""Two sides of a comparison, each a process of its own that waits while the other works.

Both libraries keep pools of threads and memory. In one process they would share
neither fairly; in two, a side that waits on its pipe costs nothing, and the parent lets
one work at a time. Requests and answers are lines of JSON; the peer's interpreter may
be another one than ours, for the two need not be installed together.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# OpenMP's threads spin for some milliseconds after their work is done.
_REST_SECONDS = 0.3

# Memory in huge pages for both sides: the command line sets it for itself, and PyTorch
# gains by it too.
_HUGE_PAGES = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}


class SideFailed(Exception):
  """A request that a side could not fulfil: its error in one line."""


class Side:
  """A process that answers requests.

  Args:
    script: beside this file; ends in `serve`.
    python: the interpreter that runs it.
    environment: variables to set in it.
  """

  def __init__(
    self, script: str, python: str, environment: dict[str, str] | None = None
  ):
    self._process = subprocess.Popen(
      [python, str(HERE / script)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**_HUGE_PAGES, **os.environ, **(environment or {})},
    )

  def ask(self, request: str, **arguments: Any) -> Any:
    """Returns the answer to a request; raises SideFailed where there is none."""
    try:
      self._process.stdin.write(json.dumps({'request': request, **arguments}) + '\n')
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ''
    if not line:
      raise SideFailed(f'the process ended with code {self._process.wait()}')
    answer = json.loads(line)
    if 'error' in answer:
      raise SideFailed(answer['error'])
    return answer['value']

  def close(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    try:
      self._process.wait(timeout=30)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process.stdout.close()

  def __enter__(self) -> 'Side':
    return self

  def __exit__(self, *error: Any) -> None:
    self.close()


def serve(requests: dict[str, Callable[..., Any]]) -> None:
  """Answers requests from the parent until it closes the pipe.

  What a library prints goes to the standard error, so that it is not taken for an
  answer.
  """
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  for line in sys.stdin:
    arguments = json.loads(line)
    try:
      answer = {'value': requests[arguments.pop('request')](**arguments)}
    except Exception as error:
      traceback.print_exc()
      # An error out of a worker process has its own traceback between these two.
      lines = str(error).strip().splitlines() or ['']
      ends = ' ... '.join(dict.fromkeys((lines[0], lines[-1])))
      answer = {'error': f'{type(error).__name__}: {ends}'}
    answers.write(json.dumps(answer) + '\n')
    answers.flush()


def alternate(
  ours: Callable[[], float], peer: Callable[[], float], rounds: int
) -> dict[str, Any]:
  """Measures both in turn (A B A B ...) and returns the ratios of their speeds.

  Args:
    ours, peer: work for a while and return the images per second of it.
    rounds: pairs to measure.

  Returns:
    {'ours', 'peer', 'ratio': {'n', 'min', 'median', 'max'}, 'pairs'}; a ratio is that
    of the two speeds of one pair, above 1 where ours is the faster.
  """
  pairs = []
  for _ in range(rounds):
    pair = []
    for side in (ours, peer):
      time.sleep(_REST_SECONDS)
      pair.append(side())
    pairs.append(pair)
  return {
    'ours': spread([a for a, _ in pairs]),
    'peer': spread([b for _, b in pairs]),
    'ratio': spread([a / b for a, b in pairs]),
    'pairs': pairs,
  }


def spread(values: Sequence[float]) -> dict[str, float]:
  """Returns how many values there are, the least, the median and the largest."""
  return {
    'n': len(values),
    'min': min(values),
    'median': statistics.median(values),
    'max': max(values),
  }
