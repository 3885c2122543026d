"""Loggers: what each backend receives, from stubs and from the packages themselves."""

import io
import json
import struct
import subprocess
import sys
import textwrap
import types
import uuid

import numpy as np
import pytest
from PIL import Image

from jaxvision import config as config_lib
from jaxvision.errors import UserError
from jaxvision.training import loggers
from jaxvision.training.callbacks import CallbackList, TrainContext

PICTURE = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def make_context(directory, start_step=0):
  directory.mkdir(exist_ok=True)
  config = config_lib.base_config()
  config.batch_size = 64
  return TrainContext(
    directory=directory,
    config=config,
    info=types.SimpleNamespace(name='digits', class_names=('0', '1')),
    start_step=start_step,
    total_steps=20,
    steps_per_epoch=5.0,
    params={'params': 53098},
  )


def train(logger, directory, *, start=0, state=None, error=None, summary=None):
  """Reports steps of a run to `logger`; returns the state in its last checkpoint."""
  callbacks = CallbackList([logger])
  if state is not None:
    callbacks.restore(state)
  callbacks.on_train_begin(make_context(directory, start))
  try:
    callbacks.on_log(start + 5, {'loss': 2.0, 'learning_rate': 0.1})
    callbacks.on_evaluation(start + 5, 'test', {'accuracy': 0.5, 'loss': float('nan')})
    callbacks.on_image(start + 5, 'test/images', PICTURE)
    kept = json.loads(json.dumps(callbacks.state()))
    if error is not None:
      raise error
  except (RuntimeError, KeyboardInterrupt):
    callbacks.on_train_end(start + 5, None)
  else:
    callbacks.on_train_end(start + 5, summary)
  return kept


# The ways in which a run may end, and what `train` needs for each.
ENDINGS = {
  'finished': {'summary': {'test_accuracy': 0.5, 'device_kind': 'cpu', 'bins': [1, 2]}},
  'stopped': {},
  'interrupted': {'error': KeyboardInterrupt()},
  'failed': {'error': RuntimeError('no memory')},
}


# TensorBoard


def read_events(path):
  """Returns [(step, tag, value)]; pictures as arrays, 'START' as a tag of its own."""
  from tensorboardX.proto import event_pb2

  raw, offset, found = path.read_bytes(), 0, []
  while offset < len(raw):  # length u64, its CRC u32, the event, its CRC u32
    size = int.from_bytes(raw[offset : offset + 8], 'little')
    event = event_pb2.Event.FromString(raw[offset + 12 : offset + 12 + size])
    offset += size + 16
    if event.HasField('session_log'):
      found.append((event.step, 'START', event.session_log.status))
    for value in event.summary.value:
      content = value.simple_value
      if value.HasField('image'):
        content = Image.open(io.BytesIO(value.image.encoded_image_string))
      if value.HasField('tensor'):
        content = value.tensor.string_val[0].decode()
      found.append((event.step, value.tag, content))
  return found


def test_tensorboard_receives_measures_pictures_config_and_summary(tmp_path):
  train(loggers.TensorBoardLogger(), tmp_path, **ENDINGS['finished'])
  (path,) = tmp_path.glob('events.out.tfevents.*')
  found = {(step, tag): value for step, tag, value in read_events(path)}
  assert found[5, 'train/loss'] == 2
  assert found[5, 'train/learning_rate'] == pytest.approx(0.1)
  assert found[5, 'test/accuracy'] == 0.5
  assert np.isnan(found[5, 'test/loss'])
  assert np.array_equal(found[5, 'test/images'].convert('RGB'), PICTURE)
  config = found[0, 'config/text_summary']
  assert '| batch_size | `64` |' in config
  assert '| optimizer.name | `' in config
  assert '| parameters.params | `53098` |' in config
  summary = found[5, 'summary/text_summary']
  assert '| test_accuracy | `0.5` |' in summary
  assert '| status | `finished` |' in summary


def test_tensorboard_hides_repeated_points_of_a_resumed_run(tmp_path):
  train(loggers.TensorBoardLogger(), tmp_path)
  train(loggers.TensorBoardLogger(), tmp_path, start=2)
  first, second = sorted(tmp_path.glob('events.out.tfevents.*'))
  assert (5, 'train/loss', 2.0) in read_events(first)
  assert (3, 'START', 1) in read_events(second)
  assert (7, 'train/loss', 2.0) in read_events(second)


def test_tensorboard_shows_points_and_pictures_while_the_run_goes_on(tmp_path):
  logger = loggers.TensorBoardLogger()
  logger.on_train_begin(make_context(tmp_path))
  logger.on_log(5, {'loss': 2.0})
  logger.on_image(5, 'samples/images', PICTURE)
  code = """
    import sys, time
    for _ in range(300):
      if b'samples/images' in open(sys.argv[1], 'rb').read():
        sys.exit(0)
      time.sleep(0.1)
    sys.exit(1)
  """
  (path,) = tmp_path.glob('events.out.tfevents.*')
  command = [sys.executable, '-c', textwrap.dedent(code), str(path)]
  assert subprocess.run(command, check=False).returncode == 0
  logger.on_train_end(5, None)


def test_tensorboard_does_without_pytorch_and_hides_it_from_no_other_thread(tmp_path):
  (tmp_path / 'torch').mkdir()
  (tmp_path / 'torch' / '__init__.py').write_text('Tensor = int')
  code = """
    import importlib, sys, threading
    sys.path.insert(0, sys.argv[1])
    from jaxvision.training import loggers

    found = []
    class Watching(type(importlib)):
      def import_module(self, name):
        look = lambda: found.append(importlib.util.find_spec('torch'))
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return importlib.import_module(name)

    before = list(sys.meta_path)
    loggers.importlib = Watching('importlib')
    loggers._import_tensorboardx().SummaryWriter
    assert 'torch' not in sys.modules
    assert found[0].origin.startswith(sys.argv[1]), found
    assert sys.meta_path == before
    import torch
    assert torch.Tensor is int
  """
  command = [sys.executable, '-c', textwrap.dedent(code), str(tmp_path)]
  subprocess.run(command, check=True)


def test_tensorboard_reads_what_was_written(tmp_path):
  accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  train(loggers.TensorBoardLogger(), tmp_path)
  train(loggers.TensorBoardLogger(), tmp_path, start=2, **ENDINGS['finished'])
  events = accumulator.EventAccumulator(str(tmp_path)).Reload()
  # Step 5 of the first part is behind the checkpoint of step 2, and hidden.
  assert [point.step for point in events.Scalars('train/loss')] == [7]
  assert [point.step for point in events.Images('test/images')] == [7]
  (text,) = events.Tensors('summary/text_summary')[-1].tensor_proto.string_val
  assert b'finished' in text


# Stubs


class Calls(list):
  """A list of (name, arguments, keywords), which methods of stubs append to."""

  def method(self, name, result=None):
    def call(*arguments, **keywords):
      self.append((name, arguments, keywords))
      return result

    return call

  def of(self, name):
    return [(arguments, keywords) for n, arguments, keywords in self if n == name]


@pytest.fixture
def calls():
  return Calls()


@pytest.fixture
def wandb(monkeypatch, calls):
  """A module like wandb."""

  def init(**keywords):
    calls.append(('init', (), keywords))
    return types.SimpleNamespace(
      id=keywords['id'] or 'new-id',
      define_metric=calls.method('define_metric'),
      log=calls.method('log'),
      finish=calls.method('finish'),
      summary=types.SimpleNamespace(update=calls.method('summary')),
    )

  module = types.ModuleType('wandb')
  module.init, module.Image = init, lambda image: ('Image', image)
  monkeypatch.setitem(sys.modules, 'wandb', module)
  monkeypatch.delenv('WANDB_PROJECT', raising=False)
  return module


@pytest.fixture
def mlflow(monkeypatch, calls):
  """A package like mlflow, with an experiment of id '7' but for the name 'new'."""

  def client(tracking_uri):
    calls.append(('MlflowClient', (tracking_uri,), {}))
    run = types.SimpleNamespace(info=types.SimpleNamespace(run_id='new-id'))
    found = types.SimpleNamespace(experiment_id='7')
    names = ('update_run', 'log_dict', 'log_batch', 'log_image', 'set_terminated')
    return types.SimpleNamespace(
      get_experiment_by_name=lambda name: None if name == 'new' else found,
      create_experiment=calls.method('create_experiment', '8'),
      create_run=calls.method('create_run', run),
      **{name: calls.method(name) for name in names},
    )

  package, entities = types.ModuleType('mlflow'), types.ModuleType('mlflow.entities')
  package.MlflowClient = client
  entities.Param = lambda key, value: (key, value)
  entities.Metric = lambda key, value, timestamp, step: (key, value, step)
  monkeypatch.setitem(sys.modules, 'mlflow', package)
  monkeypatch.setitem(sys.modules, 'mlflow.entities', entities)
  monkeypatch.delenv('MLFLOW_EXPERIMENT_NAME', raising=False)
  return package


@pytest.fixture
def trackio(monkeypatch, calls):
  """A module like trackio."""
  module = types.ModuleType('trackio')
  run = types.SimpleNamespace(log=calls.method('log'))
  module.init, module.finish = calls.method('init', run), calls.method('finish')
  module.Image = lambda image: ('Image', image)
  monkeypatch.setitem(sys.modules, 'trackio', module)
  return module


@pytest.mark.parametrize('name', ['wandb', 'mlflow', 'trackio'])
def test_a_missing_package_is_one_line(name, monkeypatch):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(UserError) as error:
    loggers.LOGGERS[name]()
  assert str(error.value) == (
    f"the {name} logger needs the package {name}: pip install 'jaxvision[{name}]'"
  )


def test_what_a_package_itself_lacks_is_not_blamed_on_it(tmp_path, monkeypatch):
  (tmp_path / 'wandb.py').write_text('import no_such_package')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)
  with pytest.raises(ModuleNotFoundError, match='no_such_package'):
    loggers.WandbLogger()


def test_wandb_receives_measures_pictures_config_and_summary(tmp_path, wandb, calls):
  logger = loggers.WandbLogger('digits', tags=['baseline'], name='mine')
  state = train(logger, tmp_path / 'run', **ENDINGS['finished'])
  assert state == {'WandbLogger': {'id': 'new-id'}}
  ((_, init),) = calls.of('init')
  assert (init['project'], init['name'], init['id']) == ('digits', 'mine', None)
  assert (init['tags'], init['dir']) == (['baseline'], str(tmp_path / 'run'))
  assert init['config']['batch_size'] == 64
  assert init['config']['parameters'] == {'params': 53098}
  json.dumps(init['config'])
  assert (('*',), {'step_metric': 'step'}) in calls.of('define_metric')
  (training, evaluation, picture) = [arguments[0] for arguments, _ in calls.of('log')]
  assert training == {'step': 5, 'train/loss': 2.0, 'train/learning_rate': 0.1}
  assert evaluation['step'] == 5
  assert evaluation['test/accuracy'] == 0.5
  assert picture['test/images'] == ('Image', PICTURE)
  (((summary,), _),) = calls.of('summary')
  assert summary == {'test_accuracy': 0.5, 'device_kind': 'cpu', 'status': 'finished'}


def test_wandb_project_comes_from_the_environment(tmp_path, wandb, calls, monkeypatch):
  train(loggers.WandbLogger(), tmp_path)
  monkeypatch.setenv('WANDB_PROJECT', 'theirs')
  train(loggers.WandbLogger(), tmp_path)
  train(loggers.WandbLogger('ours'), tmp_path)
  projects = [init['project'] for _, init in calls.of('init')]
  assert projects == ['jaxvision', 'theirs', 'ours']


@pytest.mark.parametrize(
  ('ending', 'code'),
  [('finished', 0), ('stopped', 255), ('interrupted', 255), ('failed', 1)],
)
def test_wandb_receives_the_status(ending, code, tmp_path, wandb, calls):
  train(loggers.WandbLogger(), tmp_path, **ENDINGS[ending])
  assert calls.of('finish') == [((), {'exit_code': code})]


def test_what_stops_wandb_is_one_line(tmp_path, wandb, monkeypatch):
  def init(**keywords):
    raise RuntimeError('no API key\nconfigured')

  monkeypatch.setattr(wandb, 'init', init)
  with pytest.raises(
    UserError, match='wandb could not open .*: no API key configured$'
  ):
    train(loggers.WandbLogger(), tmp_path)


def test_a_resumed_run_goes_on_with_the_same_wandb_run(tmp_path, wandb, calls):
  state = train(loggers.WandbLogger(), tmp_path)
  again = train(loggers.WandbLogger(), tmp_path, start=5, state=state)
  assert again == state
  assert [init['id'] for _, init in calls.of('init')] == [None, 'new-id']
  assert all(init['resume'] == 'allow' for _, init in calls.of('init'))


def test_mlflow_receives_measures_pictures_config_and_summary(tmp_path, mlflow, calls):
  logger = loggers.MLflowLogger(tracking_uri='sqlite:///here')
  summary = {'summary': {'acc (%)': 0.5, 'versions': {'jax': '1', 'patch': 2}}}
  state = train(logger, tmp_path / 'run', **summary)
  assert state == {'MLflowLogger': {'id': 'new-id'}}
  assert calls.of('MlflowClient') == [(('sqlite:///here',), {})]
  assert calls.of('create_run') == [(('7',), {'run_name': 'run'})]
  batches = [keywords for _, keywords in calls.of('log_batch')]
  params = [param for batch in batches for param in batch.get('params', ())]
  assert ('batch_size', '64') in params
  assert ('parameters.params', '53098') in params
  metrics = [batch['metrics'] for batch in batches if 'metrics' in batch]
  assert metrics[0] == [('train/loss', 2.0, 5), ('train/learning_rate', 0.1, 5)]
  assert metrics[1][0] == ('test/accuracy', 0.5, 5)
  assert metrics[2] == [('summary/acc ___', 0.5, 5), ('summary/versions/patch', 2, 5)]
  assert calls.of('log_image') == [
    (('new-id', PICTURE), {'key': 'test/images', 'step': 5})
  ]
  written = {arguments[2]: arguments[1] for arguments, _ in calls.of('log_dict')}
  assert written['config.json']['batch_size'] == 64
  assert written['summary.json']['versions/jax'] == '1'


def test_mlflow_makes_an_experiment_that_is_not_there(tmp_path, mlflow, calls):
  train(loggers.MLflowLogger('new'), tmp_path / 'run')
  assert calls.of('create_experiment') == [(('new',), {})]
  assert calls.of('create_run') == [(('8',), {'run_name': 'run'})]


def test_mlflow_receives_at_most_100_parameters_a_call(tmp_path, mlflow, calls):
  context = make_context(tmp_path)
  context.params = {f'network_{i}': i for i in range(250)}
  loggers.MLflowLogger().on_train_begin(context)
  sizes = [len(keywords['params']) for _, keywords in calls.of('log_batch')]
  assert max(sizes) == 100
  assert sum(sizes) > 250


@pytest.mark.parametrize(
  ('ending', 'status'),
  [
    ('finished', 'FINISHED'),
    ('stopped', 'KILLED'),
    ('interrupted', 'KILLED'),
    ('failed', 'FAILED'),
  ],
)
def test_mlflow_receives_the_status(ending, status, tmp_path, mlflow, calls):
  train(loggers.MLflowLogger(), tmp_path, **ENDINGS[ending])
  assert calls.of('set_terminated') == [(('new-id', status), {})]


def test_a_resumed_run_goes_on_with_the_same_mlflow_run(tmp_path, mlflow, calls):
  state = train(loggers.MLflowLogger(), tmp_path)
  train(loggers.MLflowLogger(), tmp_path, start=5, state=state)
  assert len(calls.of('create_run')) == 1
  assert calls.of('update_run') == [(('new-id',), {'status': 'RUNNING'})]


def test_trackio_receives_measures_pictures_config_and_summary(
  tmp_path, trackio, calls
):
  state = train(
    loggers.TrackioLogger('digits', group='g'), tmp_path / 'run', **ENDINGS['finished']
  )
  (((project,), init),) = calls.of('init')
  assert (project, init['group']) == ('digits', 'g')
  assert init['name'].startswith('run-')
  assert state == {'TrackioLogger': {'id': init['name']}}
  assert init['config']['batch_size'] == 64
  assert init['config']['parameters.params'] == 53098
  assert [keywords for _, keywords in calls.of('log')] == [{'step': 5}] * 4
  logged = [arguments[0] for arguments, _ in calls.of('log')]
  assert logged[0] == {'train/loss': 2.0, 'train/learning_rate': 0.1}
  assert logged[1]['test/accuracy'] == 0.5
  assert logged[2]['test/images'] == ('Image', PICTURE)
  assert logged[3] == {'summary/test_accuracy': 0.5, 'status': 'finished'}
  assert len(calls.of('finish')) == 1


def test_a_resumed_run_goes_on_with_the_same_trackio_run(tmp_path, trackio, calls):
  state = train(loggers.TrackioLogger(), tmp_path)
  train(loggers.TrackioLogger(), tmp_path, start=5, state=state)
  train(loggers.TrackioLogger(), tmp_path)
  names = [init['name'] for _, init in calls.of('init')]
  assert names[0] == names[1] != names[2]
  assert all(init['resume'] == 'allow' for _, init in calls.of('init'))


# The packages themselves, without a network


def wandb_records(path):
  """Yields the records of a .wandb file, a log as LevelDB writes it."""
  pb = pytest.importorskip('wandb.proto.wandb_internal_pb2')
  raw, offset, record = path.read_bytes(), 7, b''
  while offset + 7 <= len(raw):
    left = 32768 - offset % 32768
    if left < 7:
      offset += left
      continue
    _, size, kind = struct.unpack('<IHB', raw[offset : offset + 7])
    record += raw[offset + 7 : offset + 7 + size]
    offset += 7 + size
    if kind in (1, 4):  # whole, or the last part
      yield pb.Record.FromString(record)
      record = b''


def test_wandb_keeps_a_run_on_disk(tmp_path, monkeypatch):
  wandb = pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  train(loggers.WandbLogger(), tmp_path, error=RuntimeError())
  wandb.teardown()  # waits for its process, which writes the file
  (path,) = tmp_path.glob('wandb/offline-run-*/*.wandb')
  records = list(wandb_records(path))
  config = {
    update.key: json.loads(update.value_json)
    for record in records
    for update in record.run.config.update
  }
  assert config['batch_size'] == 64
  assert config['parameters'] == {'params': 53098}
  rows = [
    {item.nested_key[0] or item.key: item.value_json for item in record.history.item}
    for record in records
    if record.HasField('history')
  ]
  assert [row['step'] for row in rows] == ['5', '5', '5']
  assert float(rows[0]['train/loss']) == 2
  assert [r.exit.exit_code for r in records if r.HasField('exit')] == [1]
  assert len(list(path.parent.glob('files/media/images/test/*.png'))) == 1


def test_mlflow_keeps_a_run_in_a_database(tmp_path, monkeypatch):
  mlflow = pytest.importorskip('mlflow')
  monkeypatch.setenv('MLFLOW_DISABLE_TELEMETRY', 'true')
  monkeypatch.chdir(tmp_path)
  uri = f'sqlite:///{tmp_path / "mlflow.db"}'
  client = mlflow.MlflowClient(uri)
  state = train(loggers.MLflowLogger(tracking_uri=uri), tmp_path, error=RuntimeError())
  (experiment,) = client.search_experiments(filter_string="name = 'jaxvision'")
  (run,) = client.search_runs([experiment.experiment_id])
  assert run.info.status == 'FAILED'
  train(
    loggers.MLflowLogger(tracking_uri=uri),
    tmp_path,
    start=5,
    state=state,
    **ENDINGS['finished'],
  )
  (run,) = client.search_runs([experiment.experiment_id])
  assert run.info.status == 'FINISHED'
  assert run.data.params['batch_size'] == '64'
  assert run.data.metrics['summary/test_accuracy'] == 0.5
  history = client.get_metric_history(run.info.run_id, 'train/loss')
  assert [(point.step, point.value) for point in history] == [(5, 2.0), (10, 2.0)]
  pictures = client.list_artifacts(run.info.run_id, 'images')
  assert sum(picture.path.endswith('.png') for picture in pictures) == 2


def test_trackio_keeps_a_run_on_disk(tmp_path, monkeypatch):
  monkeypatch.setenv('TRACKIO_DIR', str(tmp_path))  # read when trackio is imported
  storage = pytest.importorskip('trackio.sqlite_storage').SQLiteStorage
  project = f'test-{uuid.uuid4().hex[:6]}'
  state = train(loggers.TrackioLogger(project), tmp_path / 'run')
  train(
    loggers.TrackioLogger(project),
    tmp_path / 'run',
    start=5,
    state=state,
    **ENDINGS['finished'],
  )
  (name,) = storage.get_runs(project)
  rows = storage.get_logs(project, name)
  losses = [(r['step'], r['train/loss']) for r in rows if 'train/loss' in r]
  assert losses == [(5, 2.0), (10, 2.0)]
  assert [row['status'] for row in rows if 'status' in row] == ['stopped', 'finished']
  assert storage.get_run_config(project, name)['batch_size'] == 64
