"""What a server counts, in the text format that Prometheus reads.

Everything is counted in the thread of the event loop, so that nothing needs a lock.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import bisect
import collections
import os
from collections.abc import Callable, Mapping, Sequence

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Histogram:
  """Counts of values by upper bounds.

  Args:
    bounds: ascending; one without a bound is added.
  """

  def __init__(self, bounds: Sequence[float]):
    self.bounds = tuple(bounds)
    self.counts = [0] * (len(bounds) + 1)
    self.sum = 0.0

  def add(self, value: float) -> None:
    """Counts a value; one that equals a bound is within it."""
    self.counts[bisect.bisect_left(self.bounds, value)] += 1
    self.sum += value

  def lines(self, name: str, labels: str = '') -> list[str]:
    """Returns the lines of a histogram; `labels` as 'route="/predict"'."""
    lines, total = [], 0
    comma = f'{labels},' if labels else ''
    for bound, count in zip((*self.bounds, '+Inf'), self.counts):
      total += count
      lines.append(f'{name}_bucket{{{comma}le="{bound}"}} {total}')
    braces = f'{{{labels}}}' if labels else ''
    return [
      *lines,
      f'{name}_sum{braces} {self.sum:.9g}',
      f'{name}_count{braces} {total}',
    ]


class Metrics:
  """The numbers of one server.

  Args:
    model: what is served, as labels, such as {'model': 'resnet20'}.
    batches: the sizes by which batches are counted.
    gauges: (name, help) -> a function that returns the value of the moment.
  """

  def __init__(
    self,
    model: Mapping[str, str],
    batches: Sequence[int],
    gauges: Mapping[tuple[str, str], Callable[[], float]],
  ):
    self._model, self._gauges = model, gauges
    self.requests: collections.Counter[tuple[str, int]] = collections.Counter()
    self.images: collections.Counter[str] = collections.Counter()
    self.batches = Histogram(batches)
    self._seconds: dict[str, Histogram] = {}

  def request(self, route: str, status: int, seconds: float) -> None:
    """Counts an answer; `route` is one of a few, never what a client wrote."""
    self.requests[route, status] += 1
    if route not in self._seconds:
      self._seconds[route] = Histogram(_SECONDS)
    self._seconds[route].add(seconds)

  def text(self) -> str:
    """Returns all numbers."""
    labels = ','.join(f'{k}="{escaped(v)}"' for k, v in self._model.items())
    lines = _headed('jaxvision_model_info', 'gauge', 'What is served.')
    lines += [f'jaxvision_model_info{{{labels}}} 1']
    lines += _headed('jaxvision_requests_total', 'counter', 'Answers, refusals too.')
    lines += [
      f'jaxvision_requests_total{{route="{route}",status="{status}"}} {count}'
      for (route, status), count in sorted(self.requests.items())
    ]
    lines += _headed(
      'jaxvision_images_total', 'counter', 'Images, by what became of them.'
    )
    lines += [
      f'jaxvision_images_total{{outcome="{outcome}"}} {count}'
      for outcome, count in sorted(self.images.items())
    ]
    lines += _headed('jaxvision_batch_size', 'histogram', 'Images in a batch.')
    lines += self.batches.lines('jaxvision_batch_size')
    name = 'jaxvision_request_seconds'
    lines += _headed(name, 'histogram', 'From the head of a request to its answer.')
    for route, histogram in sorted(self._seconds.items()):
      lines += histogram.lines(name, f'route="{route}"')
    for (name, explanation), value in self._gauges.items():
      lines += [*_headed(name, 'gauge', explanation), f'{name} {value():.12g}']
    return '\n'.join(lines) + '\n'


def escaped(value: str) -> str:
  r"""Returns the value of a label.

  >>> print(escaped('a "b"\n'))
  a \"b\"\n
  """
  return value.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')


def resident_bytes() -> float:
  """Returns the memory that the process holds now, or NaN where Linux is not there."""
  try:
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
  except OSError:
    return float('nan')


def _headed(name: str, kind: str, explanation: str) -> list[str]:
  return [f'# HELP {name} {explanation}', f'# TYPE {name} {kind}']
