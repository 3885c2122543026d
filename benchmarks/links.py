r"""How long a collective takes on a cluster, by the alpha-beta model.

A message of :math:`n` bytes takes :math:`\alpha + n / \beta` seconds. A group spans
:math:`k` nodes with :math:`m` devices in each, and sums first within the nodes, then
across them, where each device takes an :math:`m`-th, then spreads the sum within the
nodes again. An all-reduce of :math:`n` bytes takes

.. math::
  t = \alpha_0
    + 2 (m - 1) \alpha_1 + 2 \frac{m - 1}{m} \frac{n}{\beta_1}
    + 2 \lceil \log_2 k \rceil \alpha_2 + 2 \frac{k - 1}{k} \frac{n / m}{\beta_2}

with the start :math:`\alpha_0`, and :math:`\alpha_1, \beta_1` within a node,
:math:`\alpha_2, \beta_2` across. The bytes are those of a ring, which no algorithm
undercuts. The messages are those of a ring within a node and of a tree across nodes, as
NCCL counts them for what is small; halving and doubling have both at once. An all-gather
and a reduce-scatter are each half of it.

Bandwidths are those of the makers' data sheets, one direction, for one device:

  NVIDIA DGX H100: NVLink 900 GB/s both ways; eight ConnectX-7 of 400 Gb/s, one a device.
  NVIDIA DGX A100: NVLink 600 GB/s both ways; eight ConnectX-6 of 200 Gb/s, one a device.
  Ethernet: eight A100 with NVLink share one card of 25 or 100 Gb/s.

Latencies of a start, of NVLink and of InfiniBand are those that NCCL assumes when it
chooses an algorithm (src/graph/tuning.cc, tree, protocol LL): 6.8, 0.6 and 5.0 us. That
of Ethernet by TCP, 25 us, is ours.

References:
  Thakur, Rabenseifner and Gropp, `Optimization of collective communication operations in
  MPICH <https://doi.org/10.1177/1094342005051521>`_, 2005.
  Patarasuk and Yuan, `Bandwidth optimal all-reduce algorithms for clusters of
  workstations <https://doi.org/10.1016/j.jpdc.2008.09.002>`_, 2009.
  Sanders, Speck and Traeff, `Two-tree algorithms for full bandwidth broadcast, reduction
  and scan <https://doi.org/10.1016/j.parco.2009.09.001>`_, 2009: the trees of NCCL.
"""

import dataclasses

from jaxvision.training.peak_flops import known_peak

DEVICES_PER_NODE = 8
START = 6.8e-6  # seconds
_NVLINK_LATENCY, _INFINIBAND_LATENCY, _TCP_LATENCY = 0.6e-6, 5e-6, 25e-6
_GIGABIT = 1e9 / 8


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Nodes of eight devices, and what links them.

  Attributes:
    title: in a table.
    device: its name in `jaxvision.training.peak_flops`.
    within, across: bytes/s of a device in one direction, in its node and beyond.
    latency_within, latency_across: seconds of a message.
  """

  title: str
  device: str
  within: float
  across: float
  latency_within: float = _NVLINK_LATENCY
  latency_across: float = _INFINIBAND_LATENCY

  @property
  def peak(self) -> float:
    """FLOP/s of a device in bfloat16, by the data sheet."""
    return known_peak(self.device, 'bfloat16')


def _ethernet(gigabits: int) -> Cluster:
  return Cluster(
    title=f'A100, {gigabits} Gb/s Ethernet a node',
    device='A100',
    within=300e9,
    across=gigabits * _GIGABIT / DEVICES_PER_NODE,
    latency_across=_TCP_LATENCY,
  )


CLUSTERS: dict[str, Cluster] = {
  'h100': Cluster('DGX H100', 'H100', within=450e9, across=400 * _GIGABIT),
  'a100': Cluster('DGX A100', 'A100', within=300e9, across=200 * _GIGABIT),
  'ethernet100': _ethernet(100),
  'ethernet25': _ethernet(25),
}

# Ways through the ring or tree: an all-reduce scatters the sums and gathers them.
_WAYS = {'all-reduce': 2, 'all-gather': 1, 'reduce-scatter': 1}


def seconds(kind: str, size: float, within: int, nodes: int, cluster: Cluster) -> float:
  """Returns how long a collective takes.

  Args:
    kind: see `collectives`.
    size: bytes, see `collectives`.
    within: devices of a group in each node.
    nodes: that a group spans.
    cluster: whose links it uses.

  >>> slow = Cluster('', '', within=1e9, across=1e8, latency_within=0, latency_across=0)
  >>> round(seconds('all-reduce', 8e6, within=8, nodes=2, cluster=slow) - START, 6)
  0.024
  """
  if kind == 'collective-permute':  # from one device to one other
    near = nodes == 1
    latency = cluster.latency_within if near else cluster.latency_across
    return START + latency + size / (cluster.within if near else cluster.across)
  if kind == 'all-to-all':  # a part for each device of the group, one after the other
    devices = within * nodes
    return (
      START
      + (within - 1) * (cluster.latency_within + size / devices / cluster.within)
      + (devices - within) * (cluster.latency_across + size / devices / cluster.across)
    )
  messages = (within - 1) * cluster.latency_within
  messages += (nodes - 1).bit_length() * cluster.latency_across
  moved = (within - 1) / within * size / cluster.within
  moved += (nodes - 1) / nodes * size / within / cluster.across
  return START + _WAYS[kind] * (messages + moved)


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The time of a step on one device of a cluster, in seconds.

  Attributes:
    compute: of the model's operations.
    waiting: of the collectives that are waited for, which nothing hides.
    moving: of the others.
  """

  compute: float
  waiting: float
  moving: float

  @property
  def without_overlap(self) -> float:
    """The share of the time that computes, one thing after the other."""
    return self.compute / (self.compute + self.waiting + self.moving)

  @property
  def with_overlap(self) -> float:
    """The share of the time that computes, the backward pass hiding what it can.

    It is two thirds of the computation: gradients by the inputs and by the weights.
    """
    backward = 2 / 3 * self.compute
    exposed = max(0.0, self.moving - backward)
    return self.compute / (self.compute + self.waiting + exposed)


def predict(row: dict, cluster: Cluster, mfu: float) -> Prediction:
  """Predicts a step from what its program communicates.

  Args:
    row: `flops` of a device and `collectives`, see `collectives.totals`.
    cluster: where it runs.
    mfu: the share of the peak that the model's operations reach in the computation.
  """
  time = {True: 0.0, False: 0.0}
  for one in row['collectives']:
    # The time is a number for each and one for each byte, so that the mean size will do.
    mean = one['bytes'] / one['count']
    each = seconds(one['kind'], mean, one['within'], one['nodes'], cluster)
    time[one['waited']] += one['count'] * each
  return Prediction(row['flops'] / (cluster.peak * mfu), time[True], time[False])
