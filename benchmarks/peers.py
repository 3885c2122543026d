"""PyTorch twins of our models, and the process that trains them beside ours.

A twin has the layers, widths, strides, shortcuts, batch norms and number of parameters
of its model in `jaxvision.models`; the comparison is refused where the numbers differ.
The optimiser, the loss and the batch are the same as well. Started as a script it
answers the requests of `sides.py`; it needs torch (extra `peers`) and not JAX.

Every configuration that people use is tried: eager and compiled, NCHW and
channels_last, with the fused and the foreach optimiser.
"""

import contextlib
import gc
import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peer_vit import ViT
from sides import serve
from table import versions
from torch import nn


class SmallFilters(nn.Module):
  """Three 3x3 convolutions with bias, each with ReLU and a 2x2 max pool; one dense layer."""

  def __init__(self, classes: int):
    super().__init__()
    widths = (3, 8, 16, 32)
    self.convs = nn.ModuleList(
      nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)
    )
    self.head = nn.Linear(32 * 4 * 4, classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    for conv in self.convs:
      x = F.max_pool2d(F.relu(conv(x)), 2)
    return self.head(x.flatten(1))


class Unit(nn.Module):
  """3x3 convolution without bias, batch norm, ReLU."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    self.norm = nn.BatchNorm2d(outputs)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return F.relu(self.norm(self.conv(x)))


class Custom(nn.Module):
  """Three blocks of three units, the last two of a block bridged; pooled between."""

  def __init__(self, classes: int):
    super().__init__()
    self.blocks = nn.ModuleList()
    inputs = 3
    for width in (80, 144, 224):
      units = (Unit(inputs, width), Unit(width, width), Unit(width, width))
      self.blocks.append(nn.ModuleList(units))
      inputs = width
    self.dropout = nn.Dropout(0.1)
    self.head = nn.Linear(inputs, classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    for i, (first, second, third) in enumerate(self.blocks):
      if i:
        x = F.max_pool2d(x, 2)
      x = first(x)
      x = x + third(second(x))
    return self.head(self.dropout(x.mean((2, 3))))


class Residual(nn.Module):
  """A block of a ResNet: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1), shortcut B."""

  def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool):
    super().__init__()
    self.outputs = 4 * width if bottleneck else width
    # (inputs, outputs, kernel, stride) of the convolutions.
    plan = (
      ((inputs, width, 1, 1), (width, width, 3, stride), (width, self.outputs, 1, 1))
      if bottleneck
      else ((inputs, width, 3, stride), (width, width, 3, 1))
    )
    self.convs = nn.ModuleList(
      nn.Conv2d(a, b, k, s, padding=k // 2, bias=False) for a, b, k, s in plan
    )
    self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _, _ in plan)
    self.shortcut: nn.Module = nn.Identity()
    if stride > 1 or inputs != self.outputs:
      self.shortcut = nn.Sequential(
        nn.Conv2d(inputs, self.outputs, 1, stride, bias=False),
        nn.BatchNorm2d(self.outputs),
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = x
    for i, (conv, norm) in enumerate(zip(self.convs, self.norms), start=1):
      y = norm(conv(y))
      if i < len(self.convs):
        y = F.relu(y)
    return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
  """The ResNet of four stages with a stem of one 3x3 convolution."""

  def __init__(self, classes: int, sizes: tuple[int, ...], bottleneck: bool):
    super().__init__()
    self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    self.norm = nn.BatchNorm2d(64)
    blocks: list[Residual] = []
    channels = 64
    for stage, size in enumerate(sizes):
      for j in range(size):
        stride = 2 if stage and not j else 1
        blocks.append(Residual(channels, 64 * 2**stage, stride, bottleneck))
        channels = blocks[-1].outputs
    self.blocks = nn.Sequential(*blocks)
    self.head = nn.Linear(channels, classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(self.norm(self.stem(x)))
    return self.head(self.blocks(x).mean((2, 3)))


class Classifier:
  """Training, or inference, of one twin in one configuration, on one batch.

  A training step is: gradients set to None, forward, cross-entropy, backward, SGD with
  Nesterov momentum. The batch is normalised and lies on the device in the layout and
  type of the model before the clock starts. Inference is the forward pass alone.

  Args:
    model: a twin.
    classes: number of labels.
    batch_size: images of 32x32x3.
    dtype: 'float32', or 'bfloat16' for autocast.
    configuration: see `configurations`.
    inference: measure the forward pass.
  """

  def __init__(
    self,
    model: nn.Module,
    classes: int,
    batch_size: int,
    dtype: str,
    configuration: dict[str, Any],
    inference: bool,
  ):
    layout = (
      torch.channels_last if configuration['channels_last'] else torch.contiguous_format
    )
    self.model = model.to(device(), memory_format=layout).train(not inference)
    self.parameters = sum(p.numel() for p in model.parameters())
    self.batch_size = batch_size
    images = torch.randn(batch_size, 3, 32, 32)
    images = images.to(memory_format=layout)
    self._images = images.to(device(), getattr(torch, dtype))
    self._labels = torch.randint(0, classes, (batch_size,), device=device())
    self._autocast = (
      torch.autocast(device(), torch.bfloat16)
      if dtype == 'bfloat16'
      else contextlib.nullcontext()
    )
    options = {configuration['optimizer']: True}
    self._optimizer = torch.optim.SGD(
      self.model.parameters(), lr=0.01, momentum=0.9, nesterov=True, **options
    )
    call: Callable = self._forward if inference else self._loss
    if configuration['compile']:
      torch._inductor.config.freezing = configuration['freezing']
      call = torch.compile(call, mode=configuration['compile'], dynamic=False)
    self._call = call
    self._inference = inference

  def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with self._autocast:
      return F.cross_entropy(self.model(images), labels)

  def _forward(self, images: torch.Tensor) -> torch.Tensor:
    with self._autocast:
      return self.model(images)

  def step(self) -> None:
    """Takes one step; on a GPU it may be under way still when this returns."""
    if self._inference:
      with torch.no_grad():
        self._call(self._images)
      return
    self._optimizer.zero_grad(set_to_none=True)
    self._call(self._images, self._labels).backward()
    self._optimizer.step()


# Name of our model -> number of classes to the twin.
MODELS: dict[str, Callable[[int], nn.Module]] = {
  'small_filters_cnn': SmallFilters,
  'custom_cnn': Custom,
  'resnet18': lambda classes: ResNet(classes, (2, 2, 2, 2), bottleneck=False),
  'resnet50': lambda classes: ResNet(classes, (3, 4, 6, 3), bottleneck=True),
  'vit_small': ViT,
}


def classifier(name: str, classes: int, **settings: Any) -> Classifier:
  """Returns a twin by the name of our model, ready to step."""
  return Classifier(MODELS[name](classes), classes, **settings)


# Task of the config -> what builds its twin: it takes the arguments of `classifier` and
# returns an object with `step`, `parameters` and `batch_size`.
TASKS: dict[str, Callable[..., Any]] = {'classification': classifier}


def device() -> str:
  """Returns 'cuda' where PyTorch finds a GPU, else 'cpu'."""
  return 'cuda' if torch.cuda.is_available() else 'cpu'


def configurations(inference: bool, modes: Sequence[str] = ()) -> list[dict[str, Any]]:
  """Returns the ways to run a twin that are tried, of which the fastest counts.

  The optimiser is the foreach one; the fastest of these is tried with the fused one as
  well. On a GPU everything is channels_last, and the compiled ones are all modes of
  `torch.compile`, with CUDA graphs in all but the first.

  Args:
    inference: whether it is not training.
    modes: 'eager' and modes of `torch.compile` to try, where not all are wanted.
  """
  layouts = [False, True]
  if device() == 'cuda':
    layouts = [True]
  tried: Sequence[str] = modes or ['eager', 'default']
  if not modes and device() == 'cuda':
    tried = [*tried, 'reduce-overhead', 'max-autotune']
  found = [
    {'channels_last': c, 'compile': m, 'optimizer': 'foreach', 'freezing': False}
    for m in (None if mode == 'eager' else mode for mode in tried)
    for c in layouts
  ]
  if inference:  # constants folded into the program, batch norms into convolutions
    found += [{**f, 'freezing': True} for f in found if f['compile'] == 'default']
  return found


def _synchronize() -> None:
  if device() == 'cuda':
    torch.cuda.synchronize()


class _Requests:
  """What the parent may ask for."""

  def __init__(self):
    self._side: Any = None
    self._step_seconds = 0.0

  def hello(self) -> dict[str, Any]:
    """Returns what runs here."""
    gpu = device() == 'cuda'
    return {
      'versions': versions(),
      'device': torch.cuda.get_device_name() if gpu else 'cpu',
      'threads': torch.get_num_threads(),
    }

  def configurations(
    self, inference: bool, modes: Sequence[str] = ()
  ) -> list[dict[str, Any]]:
    """Returns the configurations to try."""
    return configurations(inference, modes)

  def prepare(self, task: str, **settings: Any) -> dict[str, Any]:
    """Builds, compiles and warms up one configuration in place of the one before."""
    self._side = None
    torch._dynamo.reset()
    gc.collect()
    if device() == 'cuda':
      torch.cuda.empty_cache()
      torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    begun = time.perf_counter()
    side = TASKS[task](**settings)
    for _ in range(3):
      side.step()
    _synchronize()
    ready = time.perf_counter() - begun
    self._side, self._step_seconds = side, 0.0
    return {'parameters': side.parameters, 'seconds_to_ready': ready}

  def run(self, seconds: float) -> float:
    """Takes steps for about `seconds` and returns the images per second."""
    for steps in self._counts(seconds):
      begun = time.perf_counter()
      for _ in range(steps):
        self._side.step()
      _synchronize()
      spent = time.perf_counter() - begun
      self._step_seconds = spent / steps
    return steps * self._side.batch_size / spent

  def _counts(self, seconds: float) -> Iterator[int]:
    """Yields the steps to take; the first few, once, tell how long one takes."""
    if not self._step_seconds:
      yield 3
    yield max(3, round(seconds / self._step_seconds))

  def peak_memory_bytes(self) -> int:
    """Returns the most memory so far: the device's, or on a CPU the process's."""
    if device() == 'cuda':
      return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
  """Answers the parent's requests."""
  # Both sides multiply float32 on the tensor cores as TF32, which is XLA's default.
  torch.set_float32_matmul_precision('high')
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  with contextlib.suppress(ImportError):  # the twin of the GAN, where it is there
    from peer_dcgan import dcgan

    TASKS['gan'] = dcgan
  requests = _Requests()
  serve(
    {
      name: getattr(requests, name)
      for name in ('hello', 'configurations', 'prepare', 'run', 'peak_memory_bytes')
    }
  )


if __name__ == '__main__':
  main()
