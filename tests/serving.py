"""A model that is quick, images as files, and clients that behave and that do not."""

import io
import re
import socket

import numpy as np
from PIL import Image

from jaxvision.inference.classifier import Classifier
from jaxvision.inference.signature import Signature


class Fake(Classifier):
  """Classifies 4x4 grey images by their first pixels, in no time.

  Output k of an image is pixel k over 255, so that images can be told apart exactly.
  """

  def __init__(self, names=('a', 'b', 'c'), kind='class', pads=False):
    self._signature = Signature((4, 4, 1), tuple(names), kind, model='fake')
    self.batches = []
    self.pads = pads
    self.before = lambda images: None

  @property
  def signature(self):
    return self._signature

  def probabilities(self, images):
    self.batches.append(len(images))
    self.before(images)
    pixels = images.reshape(len(images), -1)[:, : len(self._signature.class_names)]
    return pixels.astype(np.float32) / 255

  def largest_batch(self):
    return 256


def png(image):
  """Returns uint8 [H, W] or [H, W, C] as a PNG file."""
  file = io.BytesIO()
  Image.fromarray(np.asarray(image, np.uint8).squeeze()).save(file, 'PNG')
  return file.getvalue()


def grey(*pixels):
  """Returns a 4x4 image that begins with some pixels, as a PNG file."""
  image = np.zeros(16, np.uint8)
  image[: len(pixels)] = pixels
  return png(image.reshape(4, 4))


class Running:
  """A server that runs, for tests."""

  def __init__(self, server, service, log):
    self.server, self.service, self.url, self.log = server, service, server.url, log
    self.port = int(server.url.rpartition(':')[2])

  def connect(self):
    """Returns a socket that is connected to it."""
    return socket.create_connection(('127.0.0.1', self.port), timeout=10)

  def talk(self, *parts, shut=False):
    """Sends bytes by a connection of their own; returns (status, head, body)."""
    with self.connect() as connection:
      for part in parts:
        connection.sendall(part)
      if shut:
        connection.shutdown(socket.SHUT_WR)
      return answer(connection)


def answer(connection):
  """Reads one answer: (status, head, body); status 0 where there is none."""
  data = b''
  while True:
    head, found, body = data.partition(b'\r\n\r\n')
    length = re.search(rb'(?i)content-length: (\d+)', head)
    if found and length and len(body) >= int(length[1]):
      return int(head.split()[1]), head.decode().lower(), body
    chunk = connection.recv(65536)
    if not chunk:
      return 0, head.decode().lower(), body
    data += chunk


def post(body, *headers, path='/predict', length=True):
  """Returns a request of an image, as bytes."""
  lines = [f'POST {path} HTTP/1.1', 'Host: localhost', *headers]
  if not any(header.lower().startswith('content-type') for header in headers):
    lines.append('Content-Type: image/png')
  if length:
    lines.append(f'Content-Length: {len(body)}')
  return '\r\n'.join([*lines, '', '']).encode('latin-1') + body
