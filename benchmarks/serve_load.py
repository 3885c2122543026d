"""What `jaxvision serve` answers under load, beside the same images predicted offline.

    python benchmarks/serve_load.py --workdir=runs/digits_cnn
    python benchmarks/serve_load.py --workdir=runs/cifar10_resnet20 --images=8

The server is the real command in a process of its own, on the loopback interface. Clients
of one event loop, 100 of them, each with a connection that it keeps, send one request after
the other: PNG files of the run's test split, drawn by a seed, one in a request as its body,
or with --images=N several as a form. Every answer is held against
the offline prediction of its image, all probabilities of it to a thousandth of themselves,
which tells two images apart; lost and mixed-up answers are counted.

The offline rates are of the same images in one process: of pixels, at the batch size that
is the fastest, and of the same PNG files, decoded one after the other. The server does
what the second does, and HTTP; the clients take the same cores. Offline and server take
turns, and a ratio is of one pair. Milliseconds of CPU time for an image, of each process,
say where the time goes; they depend less than the rates on what else a machine does.
"""

import asyncio
import contextlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sides import HERE
from table import Result, parser, table

import jaxvision

_BATCHES = (8, 16, 32, 64, 128, 256)
_SECONDS = 2.0  # of one offline measurement
_RTOL = 1e-3


class Client(asyncio.Protocol):
  """One connection, one request at a time: no library, so that its cores are the server's."""

  def __init__(self):
    self._data, self._need = bytearray(), 0
    self._answer: asyncio.Future | None = None

  def connection_made(self, transport: Any) -> None:
    """Keeps the transport."""
    self._transport = transport

  async def ask(self, request: bytes) -> bytes | None:
    """Returns the body of the answer, None unless its status is 200."""
    self._answer = asyncio.get_running_loop().create_future()
    self._transport.write(request)
    return await self._answer

  def data_received(self, data: bytes) -> None:
    """Collects an answer."""
    self._data += data
    head = self._data.find(b'\r\n\r\n')
    if head < 0:
      return
    length = re.search(rb'content-length: (\d+)', self._data[:head])
    end = head + 4 + int(length[1])
    if len(self._data) >= end:
      good = self._data.startswith(b'HTTP/1.1 200')
      body = bytes(self._data[head + 4 : end])
      self._data.clear()
      self._answer.set_result(body if good else None)

  def connection_lost(self, error: Exception | None) -> None:
    """Fails what waits."""
    if self._answer and not self._answer.done():
      self._answer.set_result(None)


async def load(port: int, requests: list[bytes], clients: int, order: list[int]) -> Any:
  """Sends requests; returns (number, seconds, body or None) of each, and seconds of all."""
  loop = asyncio.get_running_loop()
  found: list[tuple[int, float, bytes | None]] = []
  left = iter(order)

  async def client() -> None:
    _, protocol = await loop.create_connection(Client, '127.0.0.1', port)
    for number in left:
      begun = time.perf_counter()
      body = await protocol.ask(requests[number])
      found.append((number, time.perf_counter() - begun, body))

  begun = time.perf_counter()
  await asyncio.gather(*(client() for _ in range(clients)))
  return found, time.perf_counter() - begun


@contextlib.contextmanager
def server(workdir: str, options: list[str]) -> Any:
  """Yields (process, port) of the command, and ends it as a user would."""
  command = [sys.executable, '-m', 'jaxvision.main', 'serve', f'--workdir={workdir}']
  process = subprocess.Popen(
    [*command, '--port=0', *options],
    cwd=HERE.parent,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  try:
    for line in process.stdout:
      if found := re.search(r'http://127\.0\.0\.1:(\d+)', line):
        yield process, int(found[1])
        break
    else:
      raise SystemExit('the server did not start: try the command by itself')
  finally:
    process.send_signal(signal.SIGTERM)
    process.wait()


def rate(function: Any, count: int) -> tuple[float, float]:
  """Returns images per second, and ms of CPU time for one, of predicting `count`."""
  function()
  begun, cpu, calls = time.perf_counter(), time.process_time(), 0
  while time.perf_counter() - begun < _SECONDS:
    function()
    calls += 1
  cpu = 1000 * (time.process_time() - cpu) / (calls * count)
  return calls * count / (time.perf_counter() - begun), cpu


def cpu_seconds(process: subprocess.Popen) -> float:
  """Returns the CPU time that a process has used."""
  fields = Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
  return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def resident_mb(process: subprocess.Popen) -> float:
  """Returns the memory of a process in megabytes."""
  pages = int(Path(f'/proc/{process.pid}/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def png(image: np.ndarray) -> bytes:
  """Returns uint8 [H, W, C] as a file."""
  file = io.BytesIO()
  Image.fromarray(image.squeeze()).save(file, 'PNG')
  return file.getvalue()


def request_of(files: list[bytes], top: int) -> bytes:
  """Returns a request of one file as its body, or of several as a form."""
  kind, body = 'image/png', files[0]
  if len(files) > 1:
    kind = 'multipart/form-data; boundary=-x-'
    head = b'---x-\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    body = b''.join(head + file + b'\r\n' for file in files) + b'---x---\r\n'
  lines = (
    f'POST /predict?top={top} HTTP/1.1',
    'Host: localhost',
    f'Content-Type: {kind}',
    f'Content-Length: {len(body)}',
  )
  return '\r\n'.join([*lines, '', '']).encode() + body


def agrees(body: bytes, rows: np.ndarray, names: tuple[str, ...]) -> bool:
  """Returns whether an answer holds the probabilities of its images, in order."""
  found = [
    {one['class']: one['probability'] for one in entry['predictions']}
    for entry in json.loads(body)['images']
  ]
  return np.allclose([[f[name] for name in names] for f in found], rows, _RTOL, 1e-7)


def main() -> int:
  """Measures; 1 where an answer was lost or is another image's."""
  arguments = parser(__doc__)
  arguments.add_argument('--workdir', default='runs/digits_cnn')
  arguments.add_argument('--requests', type=int, default=10_000)
  arguments.add_argument('--images', type=int, default=1, help='in a request')
  arguments.add_argument('--clients', type=int, default=100)
  arguments.add_argument('--rounds', type=int, default=3, help='of all requests')
  arguments.add_argument('--serve', action='append', default=[], help='its options')
  options = arguments.parse_args()
  result = Result('serve_load', options.json, workdir=options.workdir)
  run = jaxvision.load_run(options.workdir)
  names = run.signature.class_names
  images = np.asarray(jaxvision.data.load(run.config.data).splits['test'].images[:512])
  files = [png(image) for image in images]
  expected = run.predict(images).probabilities
  # Two images with the same prediction could be mixed up unseen.
  alike = sum(
    np.isclose(expected, row, _RTOL, 1e-7).all(-1).sum() - 1 for row in expected
  )
  arrays = {
    b: rate(lambda b=b: run.predict(images, b), len(images))[0] for b in _BATCHES
  }
  batch = max(arrays, key=arrays.get)
  result.note(pixels_by_batch=arrays, alike=int(alike))
  print(
    f'offline: batches of {batch}; {alike} of {len(images)} images are like another'
  )
  generator, wrong = random.Random(0), 0
  groups = [[image] for image in range(len(files))]
  if options.images > 1:
    groups = [generator.choices(range(len(files)), k=options.images) for _ in files]
  requests = [request_of([files[i] for i in group], len(names)) for group in groups]
  cells = []
  with server(options.workdir, options.serve) as (process, port):
    asyncio.run(load(port, requests, options.clients, list(range(len(groups)))))
    for _ in range(options.rounds):
      order = generator.choices(range(len(groups)), k=options.requests)
      pixels, pixels_cpu = rate(lambda: run.predict(images, batch), len(images))
      offline, offline_cpu = rate(
        lambda: run.predict(map(run.decode, files), batch), len(images)
      )
      before = resident_mb(process)
      cpu, client_cpu = cpu_seconds(process), time.process_time()
      found, seconds = asyncio.run(load(port, requests, options.clients, order))
      sent = len(order) * options.images
      each = 1000 / sent
      client_cpu = each * (time.process_time() - client_cpu)
      cpu = each * (cpu_seconds(process) - cpu)
      after = resident_mb(process)
      lost = len(order) - sum(body is not None for _, _, body in found)
      mixed = sum(
        body is not None and not agrees(body, expected[groups[number]], names)
        for number, _, body in found
      )
      wrong += lost + mixed
      times = 1000 * np.array([seconds for _, seconds, _ in found])
      row = {
        'requests': len(order),
        'lost': lost,
        'mixed up': mixed,
        'images/s': sent / seconds,
        'offline, files': offline,
        'ratio': sent / seconds / offline,
        'offline, pixels': pixels,
        'ratio to pixels': sent / seconds / pixels,
        'p50, ms': float(np.percentile(times, 50)),
        'p99, ms': float(np.percentile(times, 99)),
        'MB before': before,
        'MB after': after,
        'CPU ms, server': cpu,
        'client': client_cpu,
        'offline, files ': offline_cpu,
        'pixels': pixels_cpu,
      }
      result.add(row)
      cells.append(tuple(row.values()))
  print(table(tuple(row), cells))
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main())
