"""Every state is kept to the bit; damage is found, and told from what cannot be read."""

import contextlib
import errno
import fcntl
import gc
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.errors import UserError
from jaxvision.optim import OPTIMIZERS
from jaxvision.training import checkpoint_files as files
from jaxvision.training import checkpoints as checkpoints_lib
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.mesh import make_mesh, replicated

DTYPES = [
  'bool',
  'int2',
  'int4',
  'int8',
  'int32',
  'uint4',
  'uint8',
  'uint32',
  'float8_e3m4',
  'float8_e4m3fn',
  'float8_e5m2',
  'float8_e8m0fnu',
  'float4_e2m1fn',
  'bfloat16',
  'float16',
  'float32',
  'complex64',
]


def state(value=1.0, classes=3):
  return {
    'state': {
      'step': np.int32(value),
      'params': {'head': {'kernel': np.full((4, classes), value, np.float32)}},
    }
  }


def abstract(tree):
  sharding = replicated(make_mesh(data=1))
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
  )


def save(directory, steps, metrics=None, **options):
  """Writes checkpoints of `state(step)`."""
  checkpoints = Checkpoints(directory, keep=9, **options)
  for step in steps:
    measured = {'accuracy': metrics[step]} if metrics else None
    assert checkpoints.save(step, state(step), {'position': step}, measured)
    checkpoints.wait()
  checkpoints.close()


def restore(directory, which='last', read_only=True, wanted=None):
  """Returns (tree, record, warnings)."""
  checkpoints = Checkpoints(directory, read_only=read_only)
  try:
    tree, record = checkpoints.restore(abstract(wanted or state()), which)
  finally:
    checkpoints.close()
  return tree, record, checkpoints.warnings


def names(directory):
  return sorted(path.name for path in directory.iterdir())


def flip(file, bit):
  raw = bytearray(file.read_bytes())
  raw[bit // 8] ^= 1 << bit % 8
  file.write_bytes(raw)


def damage(directory, step, part='record'):
  file = directory / str(step) / 'record' / 'metadata'
  if part == 'state':
    data = (directory / str(step) / 'state').glob('**/d/*')
    file = max(data, key=lambda path: path.stat().st_size)
  flip(file, 8 * (file.stat().st_size // 2))


# Every state that a step can make.


def assert_kept(directory, tree):
  checkpoints = Checkpoints(directory)
  assert checkpoints.save(1, tree, {})
  checkpoints.wait()
  found, _ = checkpoints.restore(abstract(tree))
  checkpoints.close()
  assert jax.tree.structure(found) == jax.tree.structure(tree)
  for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(found)):
    assert (old.dtype, old.shape) == (new.dtype, new.shape)
    if jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
      assert jax.random.key_impl(old) == jax.random.key_impl(new)
      old, new = jax.random.key_data(old), jax.random.key_data(new)
    assert np.asarray(old).tobytes() == np.asarray(new).tobytes()


def after_a_step(optimizer):
  params = {'kernel': jnp.linspace(-1, 2, 12).reshape(3, 4), 'bias': jnp.ones(4)}
  opt_state = optimizer.init(params)
  _, opt_state = optimizer.update(jax.tree.map(jnp.sin, params), opt_state, params)
  return {'state': {'opt_state': jax.tree.map(jnp.asarray, opt_state)}}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_state_of_every_optimizer_is_kept_to_the_bit(tmp_path, name):
  assert_kept(tmp_path, after_a_step(OPTIMIZERS[name](0.1)))


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.adam(0.1, mu_dtype='bfloat16'),
    optax.adam(0.1, mu_dtype='float16'),
    optax.lion(0.1, mu_dtype='bfloat16'),
    optax.sgd(0.1, momentum=0.9, accumulator_dtype='bfloat16'),
    optax.noisy_sgd(0.1, key=jax.random.key(1)),
    optax.inject_hyperparams(optax.adamw, static_args='mu_dtype')(
      0.1, mu_dtype='bfloat16'
    ),
    optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
  ],
  ids=lambda _: '',
)
def test_state_of_optimizers_with_options_is_kept_to_the_bit(tmp_path, optimizer):
  assert_kept(tmp_path, after_a_step(optimizer))


def test_arrays_of_every_dtype_and_shape_are_kept_to_the_bit(tmp_path):
  arrays = {
    dtype: [np.ones(shape, jnp.dtype(dtype)) for shape in ((), (1,), (3, 5), (0, 2))]
    for dtype in DTYPES
  }
  keys = [jax.random.key(3), jax.random.split(jax.random.key(4, impl='rbg'), 3)]
  assert_kept(tmp_path, {'state': arrays, 'keys': keys})


def test_sharded_state_is_restored_to_other_shardings(tmp_path):
  mesh = make_mesh(data=4)
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  tree = {'w': jax.device_put(np.arange(16, dtype=np.float32), split)}
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, tree, {})
  checkpoints.wait()
  for sharding in (split, replicated(make_mesh(data=1))):
    wanted = {'w': jax.ShapeDtypeStruct((16,), np.float32, sharding=sharding)}
    found, _ = checkpoints.restore(wanted)
    assert found['w'].sharding == sharding
    np.testing.assert_array_equal(found['w'], tree['w'])
  checkpoints.close()


def test_checksums_are_made_while_training_goes_on(tmp_path, monkeypatch):
  describe, go_on = files.describe_leaves, threading.Event()

  def waiting(host):
    assert go_on.wait(60)
    return describe(host)

  monkeypatch.setattr(files, 'describe_leaves', waiting)
  checkpoints = Checkpoints(tmp_path)
  tree, record = state(1), {'callbacks': {'count': 1}}
  assert checkpoints.save(1, tree, record)
  assert checkpoints.steps() == []
  # As the next step and a callback do.
  record['callbacks']['count'] = 2
  go_on.set()
  checkpoints.wait()
  found, kept = checkpoints.restore(abstract(tree))
  checkpoints.close()
  assert kept['callbacks'] == {'count': 1}
  chex.assert_trees_all_equal(found, tree)


@pytest.mark.parametrize('ask', ['save', 'wait'])
def test_fault_in_the_background_is_raised_once(tmp_path, monkeypatch, ask):
  checkpoints = Checkpoints(tmp_path)

  def fails(host):
    raise MemoryError('no memory for checksums')

  with monkeypatch.context() as patch:
    patch.setattr(files, 'describe_leaves', fails)
    checkpoints.save(1, state(1), {})
    with pytest.raises(MemoryError, match='no memory for checksums'):
      checkpoints.wait() if ask == 'wait' else checkpoints.save(2, state(2), {})
  assert checkpoints.steps() == []
  assert checkpoints.save(3, state(3), {})
  checkpoints.close()
  assert checkpoints.steps() == [3]


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float8_e5m2'])
def test_parameters_that_are_not_finite_are_refused(tmp_path, value, dtype):
  checkpoints = Checkpoints(tmp_path)
  bad = np.array([1.0, value], jnp.dtype(dtype))
  assert not checkpoints.save(1, {'state': {'params': bad}}, {})
  assert checkpoints.steps() == []
  # The least loss so far, before any; a metric that has gathered nothing.
  least = np.float32(np.inf)
  fine = {'state': {'opt_state': {'least': least}}, 'metrics': {'least': least}}
  assert checkpoints.save(2, fine, {})
  assert not checkpoints.save(3, {'state': {'opt_state': np.float32(np.nan)}}, {})
  checkpoints.close()


# Damage.


def test_no_flipped_bit_changes_what_a_record_says(tmp_path):
  save(tmp_path, [320], {320: 0.5})
  file, written = tmp_path / '320' / 'record' / 'metadata', tmp_path / '320'
  record, whole = files.read_record(written), file.read_bytes()
  for bit in range(0, 8 * len(whole), 5):
    flip(file, bit)
    with contextlib.suppress(ValueError):
      assert files.read_record(written) == record
    file.write_bytes(whole)


def test_no_flipped_bit_changes_a_state(tmp_path):
  save(tmp_path, [3])
  random = np.random.default_rng(0)
  for file in (tmp_path / '3' / 'state').rglob('*'):
    if not file.is_file() or not file.stat().st_size:
      continue
    whole = file.read_bytes()
    for bit in random.integers(8 * len(whole), size=8):
      flip(file, bit)
      with contextlib.suppress(UserError):
        found, *_ = restore(tmp_path)
        kernel = found['state']['params']['head']['kernel']
        np.testing.assert_array_equal(kernel, np.full((4, 3), 3, np.float32))
      file.write_bytes(whole)


def test_checkpoint_under_another_step_is_damaged(tmp_path):
  save(tmp_path, [4])
  (tmp_path / '4').rename(tmp_path / '40')
  with pytest.raises(UserError, match='the record is of step 4'):
    restore(tmp_path)


def test_record_without_a_checksum_of_its_own_still_loads(tmp_path):
  save(tmp_path, [4, 8])
  for step in (4, 8):
    file = tmp_path / str(step) / 'record' / 'metadata'
    record = json.loads(file.read_text())
    leaves = jax.tree_util.tree_flatten_with_path(state(step))[0]
    checksums = {
      jax.tree_util.keystr(path): files.describe_leaves({'x': leaf})['x']['checksum']
      for path, leaf in leaves
    }
    old = {'position': step, 'checksums': checksums, 'format': 1, 'step': step}
    assert record['format'] == 2
    file.write_text(json.dumps(old))
    (tmp_path / str(step) / 'metrics').mkdir()
    measured = {'accuracy': 1 / step}
    (tmp_path / str(step) / 'metrics' / 'metrics').write_text(json.dumps(measured))
  assert restore(tmp_path)[1]['step'] == 8
  assert restore(tmp_path, 'best')[1]['step'] == 4
  damage(tmp_path, 8, 'state')
  assert restore(tmp_path)[1]['step'] == 4


@pytest.mark.parametrize('part', ['record', 'state'])
def test_damaged_checkpoints_are_set_aside_once_a_whole_one_is_found(tmp_path, part):
  save(tmp_path, [1, 2, 3])
  for step in (2, 3):
    damage(tmp_path, step, part)
  _, record, warnings = restore(tmp_path)
  assert record['position'] == 1
  assert names(tmp_path) == ['1', '2', '3']  # a reader changes nothing
  assert len(warnings) == 2
  _, record, warnings = restore(tmp_path, read_only=False)
  assert record['position'] == 1
  assert names(tmp_path) == ['1', 'damaged-2', 'damaged-3']
  assert 'checkpoint of step 3 is damaged and passed over' in warnings[0]
  shutil.rmtree(tmp_path / '1')
  with pytest.raises(UserError, match='no checkpoint is whole.*--overwrite'):
    restore(tmp_path, read_only=False)


@pytest.mark.parametrize('read_only', [True, False])
def test_where_none_is_whole_nothing_is_changed(tmp_path, read_only):
  save(tmp_path, [1, 2])
  for step in (1, 2):
    damage(tmp_path, step)
  for _ in range(2):
    with pytest.raises(UserError, match='no checkpoint is whole: step 2: '):
      restore(tmp_path, read_only=read_only)
    assert names(tmp_path) == ['1', '2']
  assert Checkpoints(tmp_path / 'empty', read_only=True).restore(abstract({})) is None


@pytest.mark.parametrize(
  ('part', 'words'),
  [('state', 'checkpoint best .step 1. is damaged'), ('record', 'best is not known')],
)
def test_damaged_best_is_not_replaced_in_silence(tmp_path, part, words):
  save(tmp_path, [1, 2, 3], {1: 0.9, 2: 0.1, 3: 0.2})
  assert restore(tmp_path, 'best')[1]['step'] == 1
  damage(tmp_path, 1, part)
  with pytest.raises(UserError, match=f'{words}.*step 3 is whole.*--checkpoint=last'):
    restore(tmp_path, 'best')
  assert restore(tmp_path)[1]['step'] == 3
  with pytest.raises(UserError, match='checkpoint 1 is damaged.*--checkpoint=last'):
    restore(tmp_path, 1)
  checkpoints = Checkpoints(tmp_path, keep=1)
  checkpoints.save(4, state(4), {}, {'accuracy': 0.1})
  checkpoints.close()
  # What may be the best is not deleted.
  assert names(tmp_path) == (['1', '4'] if part == 'state' else ['1', '3', '4'])


@pytest.fixture
def told(monkeypatch, capfd):
  """Returns what Orbax and TensorStore tell of what they have dropped."""
  unraisable = []
  monkeypatch.setattr(
    sys, 'unraisablehook', lambda event: unraisable.append(str(event))
  )

  def wait():
    time.sleep(0.3)  # some of it comes late
    gc.collect()
    return [*unraisable, capfd.readouterr().err]

  return wait


def many(count=40):
  leaves = {f'layer{i}': np.random.rand(100, 100).astype('f') for i in range(count)}
  return {'state': {'params': leaves}}


@pytest.mark.parametrize('lost', ['**/d/*', 'manifest.ocdbt', 'd/*', '_METADATA'])
def test_missing_part_is_told_in_one_line(tmp_path, told, lost):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, many(), {})
  checkpoints.wait()
  for path in (tmp_path / '1' / 'state').glob(lost):
    path.unlink()
  with pytest.raises(UserError) as error:
    checkpoints.restore(abstract(many()))
  checkpoints.close()
  assert '\n' not in str(error.value)
  assert told() == ['']


def test_failing_write_is_told_once(tmp_path, told):
  checkpoints = Checkpoints(tmp_path)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limit[1]))
  try:
    checkpoints.save(1, many(), {})
    with pytest.raises(ValueError, match="File too large.*os_error_code='27'"):
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, handler)
  assert checkpoints.steps() == []
  checkpoints.close()
  assert told() == ['']


# What cannot be read is not damaged.


@pytest.mark.parametrize('reader', ['read_record', 'read_state'])
@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (PermissionError(errno.EACCES, 'no'), 'Permission denied'),
    (OSError(errno.EIO, 'no'), 'Input/output error'),
    (OSError(errno.EMFILE, 'no'), 'Too many open files'),
    (MemoryError(), 'out of memory'),
    (ValueError("INTERNAL: ... [os_error_code='5']"), 'Input/output error'),
    (ValueError('RESOURCE_EXHAUSTED: 8 GB'), 'ValueError: RESOURCE_EXHAUSTED: 8 GB'),
  ],
)
def test_unreadable_checkpoint_is_not_damaged(
  tmp_path, monkeypatch, reader, error, words
):
  save(tmp_path, [1, 2])

  def fail(*_):
    try:
      raise error
    except Exception as cause:
      raise ValueError('wrapped') from cause

  monkeypatch.setattr(files, reader, fail)
  for which in ('last', 'best', 2):
    with pytest.raises(UserError, match=f'cannot be read .{words}'):
      restore(tmp_path, which, read_only=False)
  assert names(tmp_path) == ['1', '2']


@pytest.mark.filterwarnings('ignore')  # asyncio has no file for its loop either
def test_lack_of_file_descriptors_is_not_damage(tmp_path):
  save(tmp_path, [1])
  checkpoints, wanted = Checkpoints(tmp_path), abstract(state())
  limit = resource.getrlimit(resource.RLIMIT_NOFILE)
  refused = []
  for spare in range(12):
    free = [os.open(tmp_path, os.O_RDONLY) for _ in range(spare + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, limit[1]))
    for number in free:
      os.close(number)
    try:
      checkpoints.restore(wanted)
    except UserError as error:
      refused.append(str(error))
    finally:
      resource.setrlimit(resource.RLIMIT_NOFILE, limit)
  checkpoints.close()
  assert refused
  assert [line for line in refused if 'Too many open files' not in line] == []
  assert names(tmp_path) == ['1']


@pytest.mark.parametrize(
  ('wanted', 'words'),
  [
    (state(classes=5), 'head/kernel is float32.4,3. there and float32.4,5. now'),
    ({'state': {**state()['state'], 'ema': np.float32(1)}}, 'ema is missing there'),
    ({'state': {'step': np.int32(1)}}, 'float32.4,3. there and missing now'),
    (
      jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state()),
      'bfloat16.4,3. now',
    ),
  ],
)
def test_checkpoint_of_another_shape_is_the_users_change(tmp_path, wanted, words):
  save(tmp_path, [1, 2])
  with pytest.raises(UserError, match=f'{words}.*number of classes.*--overwrite'):
    restore(tmp_path, read_only=False, wanted=wanted)
  assert names(tmp_path) == ['1', '2']


# Reading a run while it trains.


def test_checkpoint_that_is_read_is_not_deleted(tmp_path):
  save(tmp_path, [1])
  training = Checkpoints(tmp_path, keep=1)
  with checkpoints_lib._held(tmp_path / '1', fcntl.LOCK_SH):
    for step in (2, 3):
      training.save(step, state(step), {})
      training.wait()
    assert training.steps() == [1, 3]
  training.close()  # the last chance to delete it in this process is the next save
  training = Checkpoints(tmp_path, keep=1)
  training.save(4, state(4), {})
  training.close()
  assert names(tmp_path) == ['4']


@pytest.mark.parametrize('which', ['last', 'best'])
def test_reader_takes_the_next_where_one_has_gone(tmp_path, monkeypatch, which):
  save(tmp_path, [1, 2, 3], {1: 0.1, 2: 0.2, 3: 0.3})
  read_state, read = files.read_state, []

  def gone(path, record):
    # By one that asks for no lock.
    read.append(record['step'])
    if len(read) < 3:
      shutil.rmtree(path)
      raise FileNotFoundError(path)
    return read_state(path, record)

  monkeypatch.setattr(files, 'read_state', gone)
  _, record, warnings = restore(tmp_path, which)
  assert read == [3, 2, 1]
  assert record['step'] == 1
  assert warnings == []


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path):
  save(tmp_path, [1])
  left = ('3.orbax-checkpoint-tmp', '.deleted-2')
  for name in left:
    shutil.copytree(tmp_path / '1', tmp_path / name)
  (tmp_path / '007').mkdir()
  assert restore(tmp_path)[1]['step'] == 1
  assert set(left) < set(names(tmp_path))
  assert restore(tmp_path, read_only=False)[1]['step'] == 1
  assert names(tmp_path) == ['007', '1']
