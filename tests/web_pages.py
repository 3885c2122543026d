"""A page of a classifier in a browser, beside the same classifier by onnxruntime."""

import base64

import numpy as np

from jaxvision.inference.onnx_model import load_onnx

HOSTILE = (
  '</script><script>window.hit = 1</script>',
  '<img src=x onerror="window.hit = 1">',
  '"日本語" & \'$x$\' {{ 7 * 7 }} <!--',
)
PIXELS = """(canvas) => {
  const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return [height, width, btoa(String.fromCharCode(...data))];
}"""


class Classified:
  """A page of a classifier that is open, and the same classifier by onnxruntime."""

  def __init__(self, page, path):
    self.page, self.classifier = page, load_onnx(path)
    self.requests = []
    page.wait_for_selector('body[data-ready]', timeout=30_000)
    self.done = int(page.get_attribute('body', 'data-done') or 0)
    page.on('request', lambda request: self.requests.append(request.url))

  def give(self, files):
    """Chooses files, (name, bytes) each, and waits for them to be classified."""
    types = {'jpg': 'image/jpeg', 'txt': 'text/plain'}
    self.page.set_input_files(
      '#choose',
      [
        {
          'name': name,
          'mimeType': types.get(name[-3:], f'image/{name[-3:]}'),
          'buffer': content,
        }
        for name, content in files
      ],
    )
    self.wait(len(files))

  def wait(self, count=1):
    self.done += count
    self.page.wait_for_selector(f'body[data-done="{self.done}"]', timeout=60_000)

  def input(self, selector='#input'):
    """What the network has been given: uint8 [H, W, C]."""
    shape = self.classifier.signature.image_shape
    return canvas(self.page, selector)[..., : shape[2]]

  def top(self, images):
    return self.classifier.predict(images).top(1)


def canvas(page, selector):
  """Returns the pixels of a canvas, uint8 [H, W, 3]."""
  height, width, text = page.eval_on_selector(selector, PIXELS)
  return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[
    ..., :3
  ]
