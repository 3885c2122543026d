"""Servers on the loopback interface."""

import contextlib
import io
from pathlib import Path

import pytest
from serving import Running

import jaxvision

pytest.importorskip('uvicorn', reason='the server comes with the extra "serve"')

from jaxvision.deployment.server.app import Service
from jaxvision.deployment.server.limits import Limits
from jaxvision.deployment.server.logs import Log
from jaxvision.deployment.server.running import Server, bound_socket

TRAINED = Path(__file__).resolve().parents[2] / 'fixtures' / 'trained'


@pytest.fixture
def serve():
  """Starts servers of a model: serve(model, origins=(), **limits)."""
  with contextlib.ExitStack() as stack:

    def start(model, origins=(), warm=True, hosts=(), **limits):
      stream = io.StringIO()
      log = Log(stream)
      service = Service(model, Limits(**limits), log, origins, hosts)
      server = Server(service, bound_socket('127.0.0.1', 0), log)
      server.start()
      stack.callback(log.close)
      stack.callback(server.stop)
      if warm:
        assert server.wait_until_warm(60)
      return Running(server, service, stream)

    yield start


@pytest.fixture(scope='session')
def classifier():
  """A trained run of digits."""
  return jaxvision.load_run(TRAINED / 'digits_cnn')


@pytest.fixture(scope='session')
def digits():
  """Test images of digits, uint8 [n, 8, 8, 1]."""
  return jaxvision.data.load('digits').splits['test'].images
