"""A network as a page for any static host, or as one HTML file.

The browser runs the network by onnxruntime-web and prepares images as
`jaxvision.data.decode.decode_image` does, so that the page predicts what `jaxvision
predict` does:

  * The browser decodes the file: PNG, JPEG, WebP, GIF, BMP, AVIF. EXIF orientation is
    applied, colour profiles are not. Of lossless files the pixels are Pillow's to the
    bit; of JPEG, WebP and AVIF those of another decoder, mostly equal and at times a
    level or two off.
  * Transparent pixels are laid over white by Pillow's integers. A canvas keeps colours
    multiplied by alpha, which rounds before that.
  * Grey is (19595 R + 38470 G + 7471 B + 2^15) >> 16, ITU-R 601 as Pillow has it.
  * The part about the centre that has the shape of the network's input, times
    `crop_fraction`, is resampled by the bilinear or bicubic filter whose support grows
    with the scale: across and then down, or the other way round for high pictures,
    weights of 22 bits, rounded to 8 bits after each. That is Resample.c of Pillow 13 in
    JavaScript, and equal to it to the bit; earlier versions always go across first, which
    rounds pictures more than twice as high as wide otherwise.
  * Frames of a camera take the same way.

What follows, normalisation first, is in the ONNX file.

Browsers that disguise canvases from fingerprinting (Tor, Brave, Firefox when told to)
add noise to pixels, and there a prediction may differ.
"""

import base64
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvision.deployment.web import runtime as runtime_files
from jaxvision.deployment.web.rendering import Example, Part, render, script, style
from jaxvision.inference.signature import GeneratorSignature, Signature
from jaxvision.io import write_all, write_whole, writing

_MODEL = 'model.onnx'
_WASM = f'{runtime_files.WASM}.gz'  # 3.7 MB in place of 14, which few hosts pack


def write_web(
  output: Path,
  model: bytes,
  signature: Signature | GeneratorSignature,
  *,
  examples: Sequence[Example] = (),
  single_file: bool = False,
  title: str = '',
  runtime: Path | None = None,
) -> Path:
  """Writes the page of a network that runs in the browser.

  After it has loaded, the page asks nobody for anything: images stay in the browser.

  Args:
    output: folder to write, which may be there already; or the HTML file.
    model: ONNX file. A classifier takes `images` uint8 [N, H, W, C] and gives
      `probabilities`, or `values` of a regression, float32 [N, K]; a generator takes
      `noise` float32 [N, latent] and, where it has classes, `labels` int32 [N], and gives
      `images` uint8 [N, H, W, C].
    signature: of the model.
    examples: images to try, of a classifier.
    single_file: write one HTML that holds everything and works from a disk, too.
    title: heading; '': the config's name, or the network's.
    runtime: folder or archive of onnxruntime-web; None: it is downloaded once.

  Returns:
    The HTML: `output`, or index.html in it.

  Raises:
    UserError: onnxruntime-web is not to be had, or `output` cannot be written.
  """
  found = runtime_files.find(runtime)
  write = _write_single_file if single_file else _write_folder
  with writing(output, 'export: --output'):
    return write(output, model, signature, found, examples=examples, title=title)


def _write_folder(
  output: Path,
  model: bytes,
  signature: Signature | GeneratorSignature,
  runtime: runtime_files.Runtime,
  **options: Any,
) -> Path:
  app = script(signature)
  contents: dict[str, str | bytes] = {
    runtime_files.SCRIPT: _without_map(runtime.script),
    runtime_files.GLUE: _without_map(runtime.glue),
    _WASM: gzip.compress(runtime.wasm, 6, mtime=0),
    'LICENSE-onnxruntime-web.txt': runtime_files.LICENSE,
    _MODEL: model,
    'app.css': style(),
    'app.js': app,
  }
  names = {'model': _MODEL, 'wasm': _WASM, 'glue': runtime_files.GLUE}
  html = render(
    signature,
    engine='browser',
    style=Part(file='app.css'),
    scripts=(Part(file=runtime_files.SCRIPT), Part(file='app.js')),
    files={key: _file(name, contents[name]) for key, name in names.items()},
    **options,
  )
  write_all(
    output, {**contents, 'index.html': html}
  )  # the page last: its files are there
  return output / 'index.html'


def _write_single_file(
  output: Path,
  model: bytes,
  signature: Signature | GeneratorSignature,
  runtime: runtime_files.Runtime,
  **options: Any,
) -> Path:
  contents = {'model': model, 'wasm': runtime.wasm, 'glue': runtime.glue}
  html = render(
    signature,
    engine='browser',
    style=Part(content=style()),
    scripts=(
      Part(content=_embeddable(_without_map(runtime.script))),
      Part(content=script(signature)),
    ),
    files={'model': _file(_MODEL, model)},
    blocks={
      key: base64.b64encode(gzip.compress(content, 6, mtime=0)).decode('ascii')
      for key, content in contents.items()
    },
    **options,
  )
  write_whole(output, html)
  return output


def _file(name: str, content: str | bytes) -> Mapping[str, Any]:
  return {'name': name, 'size': len(content)}


def _without_map(source: bytes) -> str:
  """Leaves out the name of the source map, which developer tools would ask the host for."""
  lines = source.decode('utf-8').splitlines(keepends=True)
  return ''.join(line for line in lines if not line.startswith('//# sourceMappingURL='))


def _embeddable(source: str) -> str:
  r"""Returns a script that ends no script element; in strings, </script is <\/script."""
  return source.replace('</script', '<\\/script').replace('<!--', '<\\!--')
