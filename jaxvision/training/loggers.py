"""Loggers: TensorBoard, Weights & Biases, MLflow and Trackio.

Each is a callback. It records training and evaluation measures over the optimiser step,
pictures, the whole config, parameter counts, and how the run ended. Packages are
imported when a logger is made, so that none of them is needed unless it is used.
"""

import contextlib
import importlib
import importlib.abc
import json
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxvision import config as config_lib
from jaxvision.errors import UserError
from jaxvision.extras import require
from jaxvision.training.callbacks import Logger, TrainContext, run_status


def _import(package: str) -> Any:
  """Imports an optional package. Raises UserError if it is not installed."""
  return require(package, package, f'the {package} logger')


@contextlib.contextmanager
def _opening(backend: str) -> Iterator[None]:
  """Turns what stops a backend, such as a missing login, into one line."""
  try:
    yield
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise UserError(f'{backend} could not open its run: {reason}') from error


def _record(context: TrainContext) -> dict[str, Any]:
  """Returns the config and the parameter counts as plain JSON."""
  record = {**context.config.to_dict(), 'parameters': context.params}
  return json.loads(json.dumps(record, default=str))


def _ending(context: TrainContext, summary: dict[str, Any] | None) -> dict[str, Any]:
  """Returns the numbers and texts of the summary, and the status of the run."""
  status = {'status': run_status(summary), 'stop_reason': context.stop_reason}
  return {
    name.replace('.', '/'): value
    for name, value in config_lib.walk({**(summary or {}), **status})
    if isinstance(value, int | float | str)
  }


def _numbers(ending: Mapping[str, Any]) -> dict[str, float]:
  """Returns the numbers of `_ending` under 'summary/'."""
  numbers = {k: float(v) for k, v in ending.items() if not isinstance(v, str)}
  return {f'summary/{name}': value for name, value in numbers.items()}


_META_PATH_LOCK = threading.Lock()


class _HideTorch(importlib.abc.MetaPathFinder):
  """Lets one thread's `import torch` fail, as if PyTorch were not installed."""

  def __init__(self):
    self._thread = threading.get_ident()

  def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
    if name == 'torch' and threading.get_ident() == self._thread:
      raise ModuleNotFoundError('hidden from tensorboardX', name=name)


def _import_tensorboardx() -> Any:
  """Imports tensorboardX without PyTorch, which it needs for an annotation only.

  All its submodules import PyTorch wherever it is installed, which takes three seconds
  and 190 MB. `sys.meta_path` is replaced rather than changed in place, because another
  thread may be iterating over it.
  """
  with _META_PATH_LOCK:
    finder = _HideTorch()
    sys.meta_path = [finder, *sys.meta_path]
    try:
      return importlib.import_module('tensorboardX')
    finally:
      sys.meta_path = [other for other in sys.meta_path if other is not finder]


class TensorBoardLogger(Logger):
  """Writes TensorBoard events into the run directory.

  A resumed run writes a file of its own, which hides the points after `start_step` of
  the files before it, because they are computed again.

  Example:
    >>> import pathlib, tempfile
    >>> from ml_collections import ConfigDict
    >>> directory = pathlib.Path(tempfile.mkdtemp())
    >>> logger = TensorBoardLogger()
    >>> logger.on_train_begin(TrainContext(directory, ConfigDict(), None, 0, 9, 3.0, {}))
    >>> logger.on_evaluation(3, 'test', {'accuracy': 0.9})
    >>> logger.on_train_end(3, {'accuracy': 0.9})
    >>> [path.name[:19] for path in directory.iterdir()]
    ['events.out.tfevents']
  """

  def on_train_begin(self, context: TrainContext) -> None:
    """Opens the file, and writes the config as a table."""
    super().on_train_begin(context)
    start = context.start_step
    self._writer = _import_tensorboardx().SummaryWriter(
      str(context.directory),
      purge_step=start + 1 if start else None,
      flush_secs=2,  # A thread writes; a viewer is behind by two seconds at most.
      # Otherwise a run resumed within a second would overwrite the earlier file.
      filename_suffix=f'.{start:010}',
    )
    self._table(start, 'config', dict(config_lib.walk(_record(context))))

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes scalars."""
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def on_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a picture."""
    self._writer.add_image(name, image, step, dataformats='HWC')

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Writes the summary as a table, and closes the file."""
    self._table(step, 'summary', _ending(self.context, summary))
    self._writer.close()

  def _table(self, step: int, tag: str, values: Mapping[str, Any]) -> None:
    """Writes a Markdown table to the tab Text."""
    cells = [f'| {k} | `{v}` |'.replace('\n', ' ') for k, v in values.items()]
    text = '\n'.join(['| field | value |', '| --- | --- |', *cells])
    self._writer.add_text(tag, text, step)


class _RemoteLogger(Logger):
  """A logger whose run lives elsewhere: its id is kept in every checkpoint."""

  _id: str | None = None

  def state(self) -> dict[str, Any]:
    """Returns the id of the run."""
    return {'id': self._id}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes on with the run of that id."""
    self._id = state['id']


class WandbLogger(_RemoteLogger):
  """Logs to Weights & Biases, with `step` as the x axis.

  A run that a signal stopped is 'killed' there, one that an error ended 'failed'.
  `WANDB_MODE=offline` keeps the run on disk, in the run directory.

  Args:
    project: Name of the project; `WANDB_PROJECT` or 'jaxvision' by default.
    **init: Further arguments of `wandb.init`, such as `entity`, `tags` or `mode`.

  Raises:
    UserError: The package wandb is not installed, or nobody is logged in.

  Example:
    >>> logger = WandbLogger('digits', tags=['baseline'])  # doctest: +SKIP
  """

  def __init__(self, project: str | None = None, **init: Any):
    _import('wandb')
    self.project = project or os.environ.get('WANDB_PROJECT') or 'jaxvision'
    self.init, self._id = init, init.get('id')

  def on_train_begin(self, context: TrainContext) -> None:
    """Opens the run, or goes on with the run of the checkpoint."""
    super().on_train_begin(context)
    # A run of its own, whether or not the process has another one open.
    arguments = {
      'project': self.project,
      'name': context.directory.name,
      'dir': str(context.directory),
      'reinit': 'create_new',
      'resume': 'allow',
      'allow_val_change': True,
      'config': _record(context),
      **self.init,
      'id': self._id,
    }
    with _opening('wandb'):
      self._run = _import('wandb').init(**arguments)
    self._id = self._run.id
    # Own x axis: wandb drops points whose internal step is behind, as after a resume.
    self._run.define_metric('step', hidden=True)
    self._run.define_metric('*', step_metric='step')

  def write(self, step: int, values: dict[str, Any]) -> None:
    """Logs values."""
    self._run.log({'step': step, **values})

  def on_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Logs a picture."""
    self.write(step, {name: _import('wandb').Image(image)})

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Writes the summary and ends the run with its status."""
    self._run.summary.update(_ending(self.context, summary))
    exit_code = {'finished': 0, 'stopped': 255, 'failed': 1}
    self._run.finish(exit_code=exit_code[run_status(summary)])


class MLflowLogger(_RemoteLogger):
  """Logs to MLflow: the config as parameters, measures as metrics, pictures as images.

  A run that a signal stopped is KILLED there, one that an error ended FAILED. The
  active run of `mlflow.start_run` is left alone.

  Args:
    experiment: Its name; `MLFLOW_EXPERIMENT_NAME` or 'jaxvision' by default.
    tracking_uri: Address of the server, or `sqlite:///FILE`; that of MLflow by default.

  Raises:
    UserError: The package mlflow is not installed, or its server does not answer.

  Example:
    >>> logger = MLflowLogger('digits', 'http://localhost:5000')  # doctest: +SKIP
  """

  def __init__(self, experiment: str | None = None, tracking_uri: str | None = None):
    _import('mlflow')
    name = experiment or os.environ.get('MLFLOW_EXPERIMENT_NAME')
    self.experiment, self.tracking_uri = name or 'jaxvision', tracking_uri

  def on_train_begin(self, context: TrainContext) -> None:
    """Opens the run, or goes on with the run of the checkpoint."""
    super().on_train_begin(context)
    record = _record(context)
    with _opening('mlflow'):
      self._client = _import('mlflow').MlflowClient(self.tracking_uri)
      if self._id is None:
        self._id = self._create(context.directory.name, record)
      else:
        self._client.update_run(self._id, status='RUNNING')
      self._client.log_dict(self._id, record, 'config.json')

  def _create(self, name: str, record: dict[str, Any]) -> str:
    """Returns the id of a new run that has the config as its parameters."""
    client = self._client
    found = client.get_experiment_by_name(self.experiment)
    place = found.experiment_id if found else client.create_experiment(self.experiment)
    run = client.create_run(place, run_name=name).info.run_id
    param = _import('mlflow.entities').Param
    # MLflow takes 100 parameters a call, of 6,000 characters each.
    params = [param(k, str(v)[:6000]) for k, v in config_lib.walk(record)]
    for first in range(0, len(params), 100):
      client.log_batch(run, params=params[first : first + 100])
    return run

  def write(self, step: int, values: dict[str, float]) -> None:
    """Logs metrics."""
    metric = _import('mlflow.entities').Metric
    now = time.time_ns() // 1_000_000
    named = ((re.sub(r'[^\w\-. :/]', '_', name), v) for name, v in values.items())
    metrics = [metric(name, float(value), now, step) for name, value in named]
    self._client.log_batch(self._id, metrics=metrics)

  def on_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Logs a picture."""
    self._client.log_image(self._id, image, key=name, step=step)

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Writes the summary and ends the run with its status."""
    ending = _ending(self.context, summary)
    self.write(step, _numbers(ending))
    self._client.log_dict(self._id, ending, 'summary.json')
    status = {'finished': 'FINISHED', 'stopped': 'KILLED', 'failed': 'FAILED'}
    self._client.set_terminated(self._id, status[ending['status']])


class TrackioLogger(_RemoteLogger):
  """Logs to Trackio, on this machine unless `TRACKIO_SPACE_ID` names a Space.

  Trackio has no status for a run: `status` is logged with the summary.

  Args:
    project: Name of the project, 'jaxvision' by default.
    **init: Further arguments of `trackio.init`, such as `group` or `space_id`.

  Raises:
    UserError: The package trackio is not installed, or its run cannot be opened.

  Example:
    >>> logger = TrackioLogger('digits')  # doctest: +SKIP
  """

  def __init__(self, project: str | None = None, **init: Any):
    _import('trackio')
    self.project, self.init = project or 'jaxvision', init
    self._id = init.get('name')

  def on_train_begin(self, context: TrainContext) -> None:
    """Opens the run, or goes on with the run of the checkpoint."""
    super().on_train_begin(context)
    # Trackio finds a run to resume by its name, so each name must be unique.
    self._id = self._id or f'{context.directory.name}-{uuid.uuid4().hex[:6]}'
    config = dict(config_lib.walk(_record(context)))
    arguments = {'resume': 'allow', 'config': config, **self.init, 'name': self._id}
    with _opening('trackio'):
      self._run = _import('trackio').init(self.project, **arguments)

  def write(self, step: int, values: dict[str, Any]) -> None:
    """Logs values."""
    self._run.log(values, step=step)

  def on_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Logs a picture."""
    self.write(step, {name: _import('trackio').Image(image)})

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Logs the summary and the status, and sends what is left."""
    ending = _ending(self.context, summary)
    self.write(step, {**_numbers(ending), 'status': ending['status']})
    _import('trackio').finish()


LOGGERS: dict[str, type[Logger]] = {
  'tensorboard': TensorBoardLogger,
  'wandb': WandbLogger,
  'mlflow': MLflowLogger,
  'trackio': TrackioLogger,
}
