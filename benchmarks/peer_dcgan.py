"""The PyTorch twin of the DCGAN: one step of the discriminator and one of the generator.

`dcgan` is the task 'gan' of `peers.py`. A step is what the papers' and the tutorials'
loops do: the discriminator's binary cross-entropy on a batch of real images and on one
of generated ones, each with batch norm statistics of its own, backward, Adam; then the
non-saturating loss of the generator through the new discriminator on the same generated
images, backward, Adam. Noise is drawn in every step.
"""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

LATENT = 100


def generator() -> nn.Module:
  """Returns the network of 370,624 parameters."""
  layers: list[nn.Module] = []
  for i, (inputs, outputs) in enumerate([(LATENT, 128), (128, 64), (64, 32), (32, 3)]):
    stride, padding = (2, 1) if i else (1, 0)
    layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False))
    layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)] if i < 3 else [nn.Tanh()]
  return nn.Sequential(*layers)


def discriminator() -> nn.Module:
  """Returns the network of 167,808 parameters."""
  layers: list[nn.Module] = []
  for i, (inputs, outputs) in enumerate([(3, 32), (32, 64), (64, 128)]):
    layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))
    if i:
      layers.append(nn.BatchNorm2d(outputs))
    layers.append(nn.LeakyReLU(0.2, inplace=True))
  return nn.Sequential(*layers, nn.Conv2d(128, 1, 4, bias=False), nn.Flatten(0))


class DCGAN:
  """Both networks in training, on one batch of real images.

  Args:
    batch_size: images of 32x32x3.
    dtype: 'float32', or 'bfloat16' for autocast.
    configuration: as in `peers.configurations`.
  """

  def __init__(self, batch_size: int, dtype: str, configuration: dict[str, Any]):
    self._device = 'cuda' if torch.cuda.is_available() else 'cpu'
    layout = (
      torch.channels_last if configuration['channels_last'] else torch.contiguous_format
    )
    networks = [
      made().to(self._device, memory_format=layout).train()
      for made in (generator, discriminator)
    ]
    for network in networks:
      for parameter in network.parameters():
        if parameter.ndim == 4:
          nn.init.normal_(parameter, 0, 0.02)
    self.parameters = sum(p.numel() for net in networks for p in net.parameters())
    self.batch_size = batch_size
    options = {configuration['optimizer']: True}
    self._optimizers = [
      torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), **options)
      for net in networks
    ]
    images = torch.rand(batch_size, 3, 32, 32) * 2 - 1
    self._images = images.to(memory_format=layout).to(self._device)
    self._real = torch.ones(batch_size, device=self._device)
    self._fake = torch.zeros(batch_size, device=self._device)
    self._autocast = (
      torch.autocast(self._device, torch.bfloat16)
      if dtype == 'bfloat16'
      else contextlib.nullcontext()
    )
    if configuration['compile']:
      networks = [
        torch.compile(net, mode=configuration['compile'], dynamic=False)
        for net in networks
      ]
    self._generator, self._discriminator = networks

  def _loss(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    with self._autocast:
      logits = self._discriminator(images)
    return F.binary_cross_entropy_with_logits(logits.float(), target)

  def step(self) -> None:
    """Takes one step of each; on a GPU it may be under way when this returns."""
    by_generator, by_discriminator = self._optimizers
    noise = torch.randn(self.batch_size, LATENT, 1, 1, device=self._device)
    with self._autocast:
      images = self._generator(noise)
    by_discriminator.zero_grad(set_to_none=True)
    self._loss(self._images, self._real).backward()
    self._loss(images.detach(), self._fake).backward()
    by_discriminator.step()
    by_generator.zero_grad(set_to_none=True)
    # The discriminator's gradient by its own weights is not wanted here.
    for parameter in self._discriminator.parameters():
      parameter.requires_grad_(False)
    self._loss(images, self._real).backward()
    for parameter in self._discriminator.parameters():
      parameter.requires_grad_(True)
    by_generator.step()


def dcgan(
  name: str,
  classes: int,
  batch_size: int,
  dtype: str,
  configuration: dict,
  inference: bool,
) -> DCGAN:
  """Returns the twin, ready to step; takes what every task of `peers.py` is given."""
  if name != 'dcgan' or classes or inference:
    raise ValueError('there is one DCGAN here, without classes, and only its training')
  return DCGAN(batch_size, dtype, configuration)
