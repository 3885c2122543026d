"""The processes of a run meet, or each says in one line why not."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxvision.config import base_config
from jaxvision.errors import UserError
from jaxvision.training import processes, rendezvous
from jaxvision.training.process_group import Group


@pytest.fixture
def address():
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{found.getsockname()[1]}'


def meet(address, indices, count, seconds=5.0, **different):
  """Returns what each of some processes says of meeting: None, or a message."""

  def one(index):
    group = Group(address, count, index, None, 'test')
    facts = processes._facts(group, base_config())
    facts |= different if index == max(indices) else {}
    try:
      for connection in rendezvous.meet(group, facts, seconds).values():
        connection.close()
    except UserError as error:
      return str(error)
    return None

  with ThreadPoolExecutor(len(indices)) as pool:
    return list(pool.map(one, indices))


def test_all_meet_in_any_order(address):
  assert meet(address, [2, 1, 0], 3) == [None] * 3


def test_who_did_not_come_is_named_in_every_process(address):
  found = meet(address, [0, 2], 4, seconds=1.0)
  assert found[0] == found[1]
  assert '2 of 4 processes did not come' in found[0]
  assert 'number 1, 3' in found[0]


def test_a_coordinator_that_is_not_there_is_named(address):
  (found,) = meet(address, [1], 2, seconds=0.5)
  assert f'process 1 of 2 did not reach process 0 at {address}' in found
  assert 'Connection refused' in found


@pytest.mark.parametrize(
  ('different', 'message'),
  [
    ({'config': 'abc'}, 'the config of process 1 is abc, and that of process 0'),
    ({'version of jaxvision': '0.0'}, 'version of jaxvision of process 1 is 0.0'),
    ({'number of processes': 3}, 'number of processes of process 1 is 3'),
    ({'index': 0}, 'two processes have number 0 of 2'),
  ],
)
def test_processes_that_differ_are_told(address, different, message):
  found = meet(address, [0, 1], 2, **different)
  assert found[0] == found[1]
  assert message in found[0]


def test_a_stranger_at_the_port_is_passed_over(address):
  host, _, port = address.partition(':')

  def stranger():
    for _ in range(100):
      try:
        with socket.create_connection((host, int(port))) as connection:
          connection.sendall(b'GET / HTTP/1.1\r\n\r\n')
          return
      except OSError:
        time.sleep(0.01)

  talking = threading.Thread(target=stranger)
  talking.start()
  assert meet(address, [0, 1], 2) == [None, None]
  talking.join()


def test_a_port_that_is_taken_is_told(address):
  host, _, port = address.partition(':')
  with socket.socket() as taken:
    taken.bind((host, int(port)))
    taken.listen()
    (found,) = meet(address, [0], 2, seconds=0.5)
  assert f'process 0 cannot listen at port {port} (Address already in use)' in found
