"""How much a server takes of everything that a client decides."""

import dataclasses

from jaxvision.data.decode import MAX_PIXELS
from jaxvision.errors import UserError

HELD_BODIES = 8  # bodies of the largest size that are held at once, over all requests
HEAD_BYTES = 65536  # of the first line and the headers of a request
PART_HEAD_BYTES = 8192  # of the headers of one file in a form
IDLE_SECONDS = 10  # between two requests of a connection

_OPTIONS = {
  'batch': '--max-batch',
  'delay_ms': '--max-delay-ms',
  'queue': '--queue',
  'images': '--max-images',
  'body_mb': '--max-body-mb',
  'megapixels': '--max-megapixels',
  'connections': '--max-connections',
  'timeout': '--timeout',
}


@dataclasses.dataclass(frozen=True)
class Limits:
  """The bounds of a server. Beyond them a request is refused, never cut.

  Attributes:
    batch: images that go through the network at once, at most.
    delay_ms: how long an image waits for others that are being read or decoded, in
      milliseconds. One that comes alone does not wait.
    queue: images that wait at once, over all requests (429 beyond).
    images: images in a request, or drawn for one (413, or 400 for what is drawn).
    body_mb: megabytes of a request's body (413); all bodies together are held to eight
      times as much (429).
    megapixels: of an image, by its header, before it is decoded: a small file can hold a
      huge picture.
    connections: open at once (503 beyond).
    timeout: seconds in which the head of a request has to come, then its body (408 for
      both), and then its answer to be there and taken (503, or the connection ends).

  Raises:
    UserError: a value is impossible; the line names the option.
  """

  batch: int = 32
  delay_ms: float = 5.0
  queue: int = 1024
  images: int = 64
  body_mb: float = 32.0
  megapixels: float = 25.0
  connections: int = 256
  timeout: float = 30.0

  def __post_init__(self):
    for name, option in _OPTIONS.items():
      value, least = getattr(self, name), 0 if name == 'delay_ms' else 1e-3
      if not least <= value < 1e9:  # NaN too
        raise UserError(f'serve: {option} must be above 0, not {value}')
    if self.queue < self.images:
      raise UserError(
        f'serve: --queue={self.queue} is below --max-images={self.images}: a request of so '
        'many could never be answered'
      )
    if self.pixels > MAX_PIXELS:
      raise UserError(
        f'serve: --max-megapixels is at most {MAX_PIXELS // 10**6}, not {self.megapixels}'
      )

  @property
  def body_bytes(self) -> int:
    """Bytes of a body."""
    return int(self.body_mb * 1e6)

  @property
  def pixels(self) -> int:
    """Pixels of an image."""
    return int(self.megapixels * 1e6)
