"""Evaluation of a run: every example of a split once, padded, masked, compiled once."""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.extend import core as jex_core

from jaxvision.config import base_config
from jaxvision.data import resident, streaming
from jaxvision.data.dataset import Dataset, Source
from jaxvision.errors import UserError, printable
from jaxvision.placement import fetch, place
from jaxvision.tasks.base import PyTree
from jaxvision.training.logging import describe
from jaxvision.training.mesh import over_batch, replicated
from jaxvision.training.step import from_host

_HELD, _HELD_BYTES = 6, 2**30  # see `images_per_batch`
_SMALL = 32  # pixels
_TRACED = 1009  # images: a prime, which is no side of a weight
_PICTURED = 24  # images whose predictions are drawn at every evaluation


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What an evaluation of a split found.

  Attributes:
    split: 'test', 'validation' or 'train'.
    measures: name -> mean over the examples.
    outputs: of the model, [n, ...], in the order of the split.
    labels: [n, ...].
    image_at: index -> image uint8 [H, W, C].
    history: the log points of the run, from metrics.jsonl.
    notes: what a reader must know first.
    files: index -> path of the image in its folder; () where it has none.
  """

  split: str
  measures: dict[str, float]
  outputs: np.ndarray
  labels: np.ndarray
  image_at: Callable[[int], np.ndarray]
  history: list[dict[str, Any]]
  notes: tuple[str, ...] = ()
  files: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class FinalEvaluation:
  """The last evaluation of a run, whatever the task.

  Attributes:
    values: what summary.json holds of it.
    line: one line for the terminal.
    write_report: (summary, directory) -> path of the report's page, which it writes to
      `report/` in the directory; by default in the run directory.
    result: what `evaluate` returns.
  """

  values: dict[str, Any]
  line: str
  write_report: Callable[..., Path]
  result: dict[str, Any]


class RunEvaluator(Protocol):
  """Evaluates a run while it trains and at its end.

  Attributes:
    split: name under which the evaluations while it trains are logged.
    final_split: the split that a run is judged by.
  """

  split: str
  final_split: str

  def compile(self) -> None:
    """Starts to compile what a run evaluates; training may begin meanwhile."""
    ...

  def measure(self, state: PyTree) -> dict[str, float]:
    """Returns measures of a state by their names."""
    ...

  def picture(self) -> np.ndarray | None:
    """Returns an image of what the last `measure` evaluated, uint8 [h, w, 3], or None."""
    ...

  def final(self, state: PyTree, split: str | None = None) -> FinalEvaluation:
    """Evaluates in full; `split` None means the split that a run is judged by."""
    ...

  def training_values(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns what summary.json holds of training, from the means of the last epoch."""
    ...

  def updated_summary(
    self, summary: dict[str, Any], final: FinalEvaluation
  ) -> dict[str, Any]:
    """Returns the summary of a finished run after another final evaluation."""
    ...


class SplitEvaluator:
  """The evaluation of one split, which is being compiled when it is made.

  Args:
    run: the run; its `eval_batch_size` and mesh decide the batches.
    source: the split.
    pipeline: 'resident' or 'streaming'.
    state: whose shapes and shardings the program is compiled for.
    eval_step: (state, batch) -> (metrics, outputs [B, ...]); None: that of the task.
  """

  def __init__(
    self,
    run: Any,
    source: Source,
    pipeline: str,
    state: PyTree,
    eval_step: Callable | None = None,
  ):
    self._run, self._source = run, source
    mesh, task = run.mesh, run.task
    self._resident = pipeline == 'resident'
    self._stream: streaming.Stream | None = None
    self._everywhere, to_batch = replicated(mesh), over_batch(mesh)
    self._to_batch = to_batch
    evaluate = eval_step or task.eval_step
    batch_size = min(_batch_size(run, source, evaluate, state), len(source))
    self._batch_size = size = -(-batch_size // mesh.size) * mesh.size

    def eval_batch(state, metrics, batch):
      new, outputs = evaluate(state, batch)
      return metrics.merge(new), outputs

    def eval_from_split(state, metrics, split, start):
      batch = resident.eval_batch(split, start, size)
      batch = jax.lax.with_sharding_constraint(batch, to_batch)
      return eval_batch(state, metrics, batch)

    empty = self._empty()
    jit = {'donate_argnums': (1,), 'out_shardings': (self._everywhere, to_batch)}
    if self._resident:
      self._split = resident.put(source, self._everywhere)
      args = (state, empty, self._split, np.int32(0))
      self._program = run.start_compiling(
        eval_from_split, *args, shared=eval_step is None, **jit
      )
    else:
      shapes = _batch_shapes(source, size, to_batch)
      self._program = run.start_compiling(
        eval_batch, state, empty, shapes, shared=eval_step is None, **jit
      )

  @functools.cached_property
  def _step(self) -> Callable:
    return self._run.compiler.wait(self._program)

  def wait(self) -> None:
    """Waits for the compiled program; the first evaluation does so by itself."""
    _ = self._step

  def _empty(self) -> Any:
    return place(self._run.task.metrics.empty(), self._everywhere)

  def _batches(self):
    """Yields (arguments of the compiled step, labels on the host) for each batch."""
    labels = np.asarray(self._source.labels)
    parts = [
      (start, labels[start : start + self._batch_size])
      for start in range(0, len(labels), self._batch_size)
    ]
    if self._resident:
      for start, part in parts:
        yield (self._split, np.int32(start)), part
      return
    stream = self._stream or self._opened_stream()
    self._stream = None  # until it is read to the end, and may begin again
    try:
      for (_, part), batch in zip(parts, stream):
        yield (from_host(batch, self._to_batch),), part
    except BaseException:  # of a reader that stops on its way, too
      stream.close()
      raise
    self._stream = stream

  def _opened_stream(self) -> streaming.Stream:
    """Returns a stream that reads the split as often as it is evaluated.

    Starting its worker processes takes seconds, so that they stay between evaluations;
    they end with this object.
    """
    stream = streaming.eval_stream(
      self._source,
      self._batch_size,
      self._run.config.data.workers,
      (jax.process_index(), jax.process_count()),
      repeat=True,
    )
    weakref.finalize(self, stream.close)
    return stream

  def measure(
    self, state: PyTree, indices: Sequence[int] = ()
  ) -> tuple[dict[str, float], np.ndarray]:
    """Returns the metrics over the whole split, and the outputs of a few examples.

    The outputs are computed anyway; they are read once all batches are under way, so
    that the device never waits.

    Args:
      state: what to evaluate.
      indices: places in the split, rising.

    Returns:
      The metrics as floats, and the outputs [len(indices), ...].
    """
    metrics, chosen, first = self._empty(), [], 0
    for args, labels in self._batches():
      metrics, outputs = self._step(state, metrics, *args)
      rows = [i - first for i in indices if first <= i < first + len(labels)]
      if rows:
        chosen.append((outputs, rows))
      first += len(labels)
    found = [fetch(outputs)[rows] for outputs, rows in chosen]
    return as_floats(metrics), np.concatenate(found) if found else np.zeros(0)

  def outputs(self, state: PyTree) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Returns the metrics, the outputs [n, ...] and the labels [n, ...] in order."""
    metrics, outputs, labels = self._empty(), [], []
    for args, batch_labels in self._batches():
      metrics, output = self._step(state, metrics, *args)
      outputs.append(fetch(output)[: len(batch_labels)])
      labels.append(batch_labels)
    return as_floats(metrics), np.concatenate(outputs), np.concatenate(labels)


def images_per_batch(
  function: Callable,
  arguments: Callable[[int], tuple],
  image_shape: Sequence[int],
  most: int,
) -> int:
  """Returns how many images a network evaluates at a time, for want of other wishes.

  On a CPU, XLA holds about six times the largest array between two layers (ResNets of
  18 and 50 layers at 64 and 224 pixels: 5.0 to 6.2), which is to stay within a gigabyte.
  The largest array is found by tracing, which compiles nothing. The memory of
  accelerators is for nothing else, and small images are worth no tracing.

  Args:
    function: that is evaluated.
    arguments: count -> the arguments of `function`, abstract ones, for so many images.
    image_shape: (H, W, C) that the network sees.
    most: at most so many.
  """
  if jax.default_backend() != 'cpu' or max(image_shape[:2]) <= _SMALL:
    return most
  traced = jax.make_jaxpr(function)(*arguments(_TRACED))
  each = _HELD * _largest(traced.jaxpr) // _TRACED
  return max(1, min(most, _HELD_BYTES // max(each, 1)))


def _largest(jaxpr: jex_core.Jaxpr) -> int:
  """Returns the bytes of the largest array in a program that grows with the batch."""
  largest = 0
  for equation in jaxpr.eqns:
    for inner in jex_core.jaxprs_in_params(equation.params):
      largest = max(largest, _largest(inner))
    for array in (variable.aval for variable in equation.outvars):
      if getattr(array, 'shape', ()) and array.shape[0] % _TRACED == 0:
        largest = max(largest, array.size * array.dtype.itemsize)
  return largest


def _batch_size(run: Any, source: Source, eval_step: Callable, state: PyTree) -> int:
  """Returns `eval_batch_size`, or where it is as by default no more than memory takes."""
  size = run.config.eval_batch_size
  features = source[0][0].ndim == 1
  if size != base_config().eval_batch_size or features:
    return size
  return images_per_batch(
    eval_step,
    lambda count: (state, _batch_shapes(source, count)),
    run.task.input_shape,
    size,
  )


def _batch_shapes(
  source: Source, size: int, sharding: jax.sharding.Sharding | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
  image, _ = source[0]
  labels = np.asarray(source.labels)
  shapes = {
    'image': ((size, *image.shape), image.dtype),
    'label': ((size, *labels.shape[1:]), labels.dtype),
    'mask': ((size,), np.bool_),
  }
  return {
    name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    for name, (shape, dtype) in shapes.items()
  }


def as_floats(metrics: Any) -> dict[str, float]:
  """Returns the values of a clu Collection as Python floats."""
  return {name: float(value) for name, value in metrics.compute().items()}


class SupervisedEvaluator:
  """A `RunEvaluator` by the validation split, or the test split where there is none.

  Args:
    run: the run.
    dataset: as loaded, with its images.
    inputs: the same, or with the features of the images in their place.
    state: whose shapes the programs are compiled for.
  """

  def __init__(self, run: Any, dataset: Dataset, inputs: Dataset, state: PyTree):
    self._run, self._dataset, self._inputs, self._state = run, dataset, inputs, state
    self.split = 'validation' if 'validation' in dataset.splits else 'test'
    self.final_split = 'test'
    self._evaluators: dict[str, SplitEvaluator] = {}
    count = len(dataset.splits[self.split])
    places = np.linspace(0, count - 1, min(_PICTURED, count)).astype(int)
    self._pictured = places.tolist()
    self._outputs = np.zeros(0)

  def compile(self) -> None:
    """Starts to compile what a run evaluates."""
    for split in dict.fromkeys([self.split, 'test']):
      self._of(split)

  def _of(self, split: str) -> SplitEvaluator:
    check_split(self._dataset, split)
    if split not in self._evaluators:
      source, pipeline = self._inputs.splits[split], self._inputs.pipeline
      self._evaluators[split] = SplitEvaluator(self._run, source, pipeline, self._state)
    return self._evaluators[split]

  def measure(self, state: PyTree) -> dict[str, float]:
    """Returns the measures on `split`."""
    measured, self._outputs = self._of(self.split).measure(state, self._pictured)
    return measured

  def picture(self) -> np.ndarray | None:
    """Draws a few images, the same each time, with their predictions."""
    if not len(self._outputs):
      return None
    source = self._dataset.splits[self.split]
    examples = [source[i] for i in self._pictured]
    return self._run.task.picture(
      [np.asarray(image) for image, _ in examples],
      np.array([label for _, label in examples]),
      self._outputs,
    )

  def final(self, state: PyTree, split: str | None = None) -> FinalEvaluation:
    """Evaluates the test split, or another one."""
    split = split or self.final_split
    measures, outputs, labels = self._of(split).outputs(state)
    run, dataset = self._run, self._dataset
    history = run.directory.history() if run.directory else []
    source = dataset.splits[split]
    evaluation = Evaluation(
      split=split,
      measures=measures,
      outputs=outputs,
      labels=labels,
      image_at=lambda index: source[index][0],
      history=history,
      notes=tuple(data_notes(dataset)),
      files=tuple(map(printable, dataset.files[split].names))
      if split in dataset.files
      else (),
    )
    validation = [p for p in history if p['split'] == 'validation']
    last = validation[-1] if validation else {}
    values = {f'validation_{n}': last.get(n) for n in ('loss', run.task.best[0])}
    values |= {f'test_{name}': value for name, value in measures.items()}
    made_up = ', made up' if dataset.synthetic else ''
    return FinalEvaluation(
      values=values,
      line=f'{split}: {describe(measures)}  ({len(labels):,} images{made_up})',
      write_report=lambda summary, directory=None: run.task.write_report(
        directory or run.directory.path, evaluation, summary
      ),
      result={'split': split, 'examples': len(labels), **measures},
    )

  def training_values(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns the loss and the measures of training."""
    return {
      f'train_{name}': measured.get(name) for name in ('loss', self._run.task.best[0])
    }

  def updated_summary(
    self, summary: dict[str, Any], final: FinalEvaluation
  ) -> dict[str, Any]:
    """Returns the summary of a finished run, which another evaluation leaves as it is."""
    del final
    return summary


def check_split(dataset: Dataset, split: str) -> None:
  """Raises UserError where a data set has no split of that name."""
  if split not in dataset.splits:
    raise UserError(
      f'eval: {dataset.name} has no split "{split}" here (it has '
      f'{", ".join(dataset.splits)})'
    )


def what_was_evaluated(
  run: Any,
  dataset: Dataset,
  *,
  split: str,
  step: int,
  of_run: bool = True,
  notes: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns what a report says of what it measured, the field `evaluated` of a summary.

  Args:
    run: the run.
    dataset: that it was evaluated on.
    split: of the data set.
    step: of the checkpoint.
    of_run: whether this is the evaluation that the run is judged by.
    notes: what is unlike that evaluation, in sentences.
  """
  return {
    'of_run': of_run,
    'step': step,
    'of_steps': run.plan.total_steps,
    'split': split,
    'examples': len(dataset.splits.get(split, ())),
    'data': dataset.origin or dataset.name,
    'fingerprint': dataset.fingerprint,
    'notes': list(notes),
  }


def ended_early(step: int, total_steps: int, reason: str | None) -> str:
  """Returns the note of a run that did not take all its steps.

  >>> ended_early(300, 1000, None)
  'This run is unfinished: it stands at step 300 of 1,000.'
  """
  where = f'step {step:,} of {total_steps:,}'
  if reason is None:
    return f'This run is unfinished: it stands at {where}.'
  return f'This run was ended early, at {where}: {reason}.'


def data_notes(dataset: Dataset) -> list[str]:
  """Returns what a reader of a report must know first of its data."""
  notes = []
  if dataset.synthetic:
    notes.append('The images are synthetic: no number here says anything of real data.')
  if dataset.skipped:
    notes.append(f'{dataset.skipped} unreadable image files were skipped.')
  return notes
