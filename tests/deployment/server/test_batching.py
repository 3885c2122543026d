"""Batches: their sizes, who waits, who has gone."""

import asyncio
import threading
import time

import numpy as np
import pytest
from serving import Fake, grey

from jaxvision.deployment.server.answers import Refusal
from jaxvision.deployment.server.batching import Batcher, batch_sizes, next_batch
from jaxvision.deployment.server.limits import Limits


def run(function, model, **limits):
  """Returns what `function(batcher)` does in a loop with a batcher that runs."""

  async def within():
    batcher = Batcher(model, Limits(**limits))
    batcher.start()
    try:
      return await asyncio.wait_for(function(batcher), 30)
    finally:
      await asyncio.to_thread(batcher.close)
      assert batcher.waiting == 0

  return asyncio.run(within())


def test_sizes_hold_every_count():
  for most in range(1, 70):
    sizes = batch_sizes(most)
    assert sizes[-1] == most
    assert list(sizes) == sorted(set(sizes))
    seconds = {size: size + 2.0 for size in sizes}
    for waiting in range(1, 100):
      count = next_batch(waiting, seconds)
      assert 1 <= count <= min(waiting, most)
      padded = next(size for size in sizes if size >= count)
      rates = [min(waiting, size) / seconds[size] for size in sizes]
      assert count / seconds[padded] == max(rates)


def test_batches_are_of_the_size_that_was_the_fastest():
  model = Fake(pads=True)
  model.before = lambda images: time.sleep(0.001 * {4: 1}.get(len(images), 40))

  async def predict(batcher):
    await asyncio.to_thread(batcher.warm_up)
    model.batches.clear()
    with batcher.reading():
      first = batcher.predict([grey(i) for i in range(16)])
    return await first

  outcomes = run(predict, model, batch=16, delay_ms=1000)
  assert [round(row[0] * 255) for row in outcomes] == list(range(16))
  assert model.batches == [4, 4, 4, 4]


def test_a_full_batch_is_computed_beside_another_and_a_smaller_one_waits():
  model, both = Fake(), threading.Barrier(2)
  model.before = lambda images: both.wait(30) if len(images) == 2 else None

  async def predict(batcher):
    return await batcher.predict([grey(i) for i in range(5)])

  outcomes = run(predict, model, batch=2)
  assert [round(row[0] * 255) for row in outcomes] == list(range(5))
  assert sorted(model.batches) == [1, 2, 2]


def test_a_model_that_compiles_sees_padded_batches():
  model = Fake(pads=True)

  async def predict(batcher):
    return await batcher.predict([grey(3 * i) for i in range(7)])

  outcomes = run(predict, model, batch=16, delay_ms=1000)
  assert model.batches in ([8], [4, 2, 1], [4, 4])
  assert [round(row[0] * 255) for row in outcomes] == [3 * i for i in range(7)]


def test_each_request_has_its_own_images_in_order():
  model = Fake()

  async def predict(batcher):
    counts = [1 + i % 5 for i in range(40)]
    requests = [
      batcher.predict([grey(i, j) for j in range(count)])
      for i, count in enumerate(counts)
    ]
    return counts, await asyncio.gather(*requests)

  counts, found = run(predict, model, batch=7)
  for i, (count, outcomes) in enumerate(zip(counts, found)):
    pixels = np.round(np.array(outcomes) * 255).astype(int)
    assert pixels[:, 0].tolist() == [i] * count
    assert pixels[:, 1].tolist() == list(range(count))
  assert max(model.batches) == 7


def test_one_alone_does_not_wait_and_others_wait_only_so_long():
  model = Fake()

  async def alone(batcher):
    return await batcher.predict([grey(1)])

  begun = time.monotonic()
  run(alone, model, delay_ms=60_000)
  assert time.monotonic() - begun < 30

  async def beside_one_that_is_read(batcher):
    with batcher.reading():
      return await batcher.predict([grey(1)])

  run(beside_one_that_is_read, model, delay_ms=100)
  assert model.batches == [1, 1]


def test_images_wait_for_others_on_their_way():
  model = Fake()

  async def predict(batcher):
    with batcher.reading():
      first = batcher.predict([grey(1)])
      while not batcher._images:
        await asyncio.sleep(0.01)
      second = batcher.predict([grey(2)])
    await first
    await second

  run(predict, model, delay_ms=20_000)
  assert model.batches == [2]


def test_who_has_gone_is_not_computed_for():
  model, entered, go_on = Fake(), threading.Event(), threading.Event()
  model.before = lambda images: (entered.set(), go_on.wait(30))

  async def predict(batcher):
    first = batcher.predict([grey(1)])
    await asyncio.to_thread(entered.wait, 30)
    gone = [batcher.predict([grey(2)]), batcher.predict([grey(3)])]
    last = batcher.predict([grey(4)])
    while len(batcher._images) < 3:
      await asyncio.sleep(0.01)
    for future in gone:
      future.cancel()
    go_on.set()
    return await first, await last

  first, last = run(predict, model)
  assert round(first[0][0] * 255) == 1
  assert round(last[0][0] * 255) == 4
  assert model.batches == [1, 1]


def test_a_fault_ends_its_own_batch_only():
  model = Fake()

  def fail(images):
    if images.any():
      raise RuntimeError('no memory')

  model.before = fail

  async def predict(batcher):
    with pytest.raises(RuntimeError, match='no memory'):
      await batcher.predict([grey(1)])
    return await batcher.predict([grey(0), b'nothing'])

  row, problem = run(predict, model)
  assert row == [0, 0, 0]
  assert 'cannot be read' in problem


def test_more_than_may_wait_is_refused():
  model = Fake()

  async def predict(batcher):
    with pytest.raises(Refusal, match='64 images wait') as refused:
      batcher.predict([grey(1)] * 65)
    assert refused.value.status == 429
    return await batcher.predict([grey(1)] * 64)

  assert len(run(predict, model, queue=64)) == 64
