"""A process of a run that ends, falls silent or hangs is named to all others."""

import json
import socket
import threading

import pytest

from jaxvision.training.lifeline import Lifeline


class Processes:
  """Processes of a run as threads of this one, connected as in `rendezvous.meet`."""

  def __init__(self, count, seconds, silent=()):
    self.lines = dict.fromkeys(range(count), '')
    self._told = {index: threading.Event() for index in range(count)}
    self.ends = {i: socket.socketpair() for i in range(1, count)}
    connections = {0: {i: pair[0] for i, pair in self.ends.items()}}
    connections |= {i: {0: pair[1]} for i, pair in self.ends.items()}
    self.lifelines = {
      i: Lifeline(i, count, connections[i], seconds, self._lost(i))
      for i in range(count)
      if i not in silent
    }

  def _lost(self, index):
    def lost(line):
      self.lines[index] = line
      self._told[index].set()

    return lost

  def said(self, index):
    """Returns the line that a process says of one that was lost."""
    assert self._told[index].wait(60)
    return self.lines[index]

  def kill(self, index):
    """Closes the connections of a process, as the system does where one ends."""
    self.lifelines.pop(index).close()


@pytest.fixture
def processes():
  made = []

  def make(*args, **options):
    made.append(Processes(*args, **options))
    return made[-1]

  yield make
  for group in made:
    for lifeline in group.lifelines.values():
      lifeline.close()


def test_one_that_has_ended_is_named_in_all_others(processes):
  group = processes(4, 60.0)
  group.kill(2)
  assert [group.said(i) for i in (0, 1, 3)] == ['process 2 of 4 has ended'] * 3


def test_the_first_is_named_in_all_others(processes):
  group = processes(3, 60.0)
  group.kill(0)
  assert [group.said(i) for i in (1, 2)] == ['process 0 of 3 has ended'] * 2


def test_one_without_a_sign_of_life_is_named(processes):
  group = processes(3, 4.0, silent=[1])
  line = 'process 1 of 3 has given no sign of life for 4 s (parallel.heartbeat_timeout)'
  assert [group.said(i) for i in (0, 2)] == [line, line]


def test_one_that_hangs_while_others_wait_is_named(processes):
  group = processes(3, 0.3)
  for index in (0, 2):
    group.lifelines[index].sign()
  line = 'process 1 of 3 has not gone on for 6 s'
  assert [group.said(i)[: len(line)] for i in (0, 1, 2)] == [line] * 3


def test_one_that_ends_well_is_not_missed(processes):
  group = processes(3, 60.0)
  group.lifelines[1].leave(0)
  group.kill(1)
  group.kill(2)  # the first that is
  assert group.said(0) == 'process 2 of 3 has ended'


def test_one_that_fails_is_named_with_its_code(processes):
  group = processes(3, 60.0)
  group.lifelines[1].leave(2)
  group.kill(1)
  line = 'process 1 of 3 has ended with exit code 2'
  assert [group.said(i) for i in (0, 2)] == [line, line]


def test_messages_that_come_in_parts_are_read(processes):
  group = processes(2, 60.0, silent=[1])
  data = json.dumps({'signs': 1}).encode() + b'\n' + b'{"end": 3}\n'
  for byte in data:
    group.ends[1][1].send(bytes([byte]))
  assert group.said(0) == 'process 1 of 2 has ended with exit code 3'
