"""metrics.jsonl and TensorBoard: every number of a run, and its images."""

import io
import time
import types

import numpy as np
import pytest
from PIL import Image

import jaxvision
from jaxvision import data
from jaxvision.config import base_config
from jaxvision.reports import image_grid
from jaxvision.training.callbacks import CallbackList, TrainContext
from jaxvision.training.loggers import TensorBoardLogger
from jaxvision.training.logging import JsonLinesLogger
from jaxvision.training.run_directory import read_history


def read_events(directory):
  """Returns {(tag, step): value}, pictures as uint8 [h, w, 3]."""
  from tensorboardX.proto import event_pb2

  (path,) = directory.glob('events.out.tfevents.*')
  raw, offset, found = path.read_bytes(), 0, {}
  while offset < len(raw):  # length u64, its CRC u32, the event, its CRC u32
    size = int.from_bytes(raw[offset : offset + 8], 'little')
    if offset + size + 16 > len(raw):
      break  # is being written
    event = event_pb2.Event.FromString(raw[offset + 12 : offset + 12 + size])
    offset += size + 16
    for value in event.summary.value:
      content = value.simple_value
      if value.HasField('image'):
        with Image.open(io.BytesIO(value.image.encoded_image_string)) as picture:
          content = np.asarray(picture.convert('RGB'))
      found[value.tag, event.step] = content
  return found


def context(directory, start_step=0):
  config = base_config()
  info = types.SimpleNamespace(name='digits', class_names=('0', '1'))
  return TrainContext(directory, config, info, start_step, 40, 5.0, {'params': 7})


def test_json_lines_drop_points_behind_the_checkpoint_and_a_cut_line(tmp_path):
  logger = JsonLinesLogger()
  logger.on_train_begin(context(tmp_path))
  for step in (10, 20, 30):
    logger.on_log(step, {'loss': 1 / step, 'accuracy': 0.5})
  logger.on_train_end(30, None)
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 40, "spl')  # as a kill leaves it
  assert [p['step'] for p in read_history(tmp_path / 'metrics.jsonl')] == [10, 20, 30]
  logger = JsonLinesLogger()
  logger.on_train_begin(context(tmp_path, start_step=20))
  logger.on_log(30, {'loss': float('nan'), 'accuracy': 0.6})
  logger.on_train_end(30, None)
  history = read_history(tmp_path / 'metrics.jsonl')
  assert [p['step'] for p in history] == [10, 20, 30]
  assert history[-1]['loss'] is None
  assert history[-1]['split'] == 'train'


def test_tensorboard_of_a_classifier_has_its_log_and_predictions(
  digits_config, tmp_path, quick_compile
):
  digits_config.parallel.data = 2
  digits_config.eval_batch_size = 104  # four batches, the last one is padded
  jaxvision.train(digits_config, tmp_path / 'run', quiet=True)
  found = read_events(tmp_path / 'run')
  points = read_history(tmp_path / 'run' / 'metrics.jsonl')
  for point in points:
    for name in point.keys() - {'step', 'split'}:
      tag = f'{point["split"]}/{name}', point['step']
      assert found[tag] == pytest.approx(point[name], rel=1e-6)
  speeds = [step for tag, step in found if tag == 'train/images_per_second']
  assert speeds == [p['step'] for p in points if p['split'] == 'train']

  tag = 'test/images'
  assert [step for name, step in found if name == tag] == [6, 12]
  # The last picture is what the finished run makes of the same images.
  run = jaxvision.load_run(tmp_path / 'run')
  dataset = data.load(digits_config.data)
  split = dataset.splits['test']
  places = np.linspace(0, len(split) - 1, 24).astype(int).tolist()
  images = [split[i][0] for i in places]
  labels = np.array([split[i][1] for i in places])
  probabilities = run.predict(np.stack(images)).probabilities
  wanted = image_grid.prediction_grid(
    images, labels, probabilities, dataset.class_names
  )
  assert np.array_equal(found[tag, 12], wanted)
  assert not np.array_equal(found[tag, 6], wanted)


def test_tensorboard_has_images_while_the_run_trains(tmp_path):
  logger = CallbackList([TensorBoardLogger()])
  logger.on_train_begin(context(tmp_path))
  picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
  logger.on_log(5, {'loss': 2.0})
  logger.on_image(5, 'samples/images', picture)
  for _ in range(300):  # a thread writes, so that training need not wait
    found = read_events(tmp_path)
    if {('train/loss', 5), ('samples/images', 5)} <= found.keys():
      break
    time.sleep(0.1)
  logger.on_train_end(5, None)
  assert found['train/loss', 5] == 2
  assert np.array_equal(found['samples/images', 5], picture)


def test_prediction_grid_colours_right_and_wrong():
  images = [np.full((8, 8, 1), 200, np.uint8), np.zeros((300, 200, 3), np.uint8)] * 4
  labels = np.array([0, 1] * 4)
  probabilities = np.tile([0.9, 0.1], (8, 1))
  picture = image_grid.prediction_grid(images, labels, probabilities, ['a' * 99, '<b>'])
  assert picture.shape[1] > 6 * 112
  colors = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
  assert {(0x56, 0xB4, 0xE9), (0xFF, 0x93, 0x50)} <= colors
  right = image_grid.prediction_grid(
    images[:1], labels[:1], probabilities[:1], ['a', 'b']
  )
  colors = {tuple(color) for color in right.reshape(-1, 3).tolist()}
  assert (0xFF, 0x93, 0x50) not in colors
  assert (200, 200, 200) in colors


def test_tensorboard_of_a_gan_has_its_samples(tmp_path, quick_compile):
  config = jaxvision.load_config(
    'configs/digits_dcgan.py',
    [
      *('model.width=8', 'data.image_size=8', 'batch_size=16', 'gan.diffaugment=()'),
      *('steps=4', 'eval_every_steps=2', 'parallel.data=1'),
    ],
  )
  jaxvision.train(config, tmp_path / 'run', quiet=True)
  found = read_events(tmp_path / 'run')
  for step in (2, 4):
    frame = tmp_path / 'run' / 'samples' / image_grid.frame_name(step)
    with Image.open(frame) as grid:
      enlarged = found['samples/images', step]
      scale = enlarged.shape[0] // grid.height
      assert scale > 1
      assert np.array_equal(enlarged[::scale, ::scale], grid.convert('RGB'))
