"""The page of a server: drop a file, see its classes; or draw."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import jinja2

_HERE = Path(__file__).parent


def page(service: Any) -> tuple[bytes, str]:
  """Returns the page and its content security policy.

  The page loads nothing but what it asks of its own server, and runs no other script than
  the one in it, whatever a class is called.

  Args:
    service: a `Service`.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  html = environment.get_template('page.html.j2').render(service=service)
  policy = [
    "default-src 'none'",
    f'script-src {_hashes("script", html)}',
    f'style-src {_hashes("style", html)}',
    "connect-src 'self'",
    "img-src 'self' blob: data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ]
  return html.encode('utf-8', 'replace'), '; '.join(policy)


def _hashes(tag: str, html: str) -> str:
  found = re.findall(f'<{tag}>(.*?)</{tag}>', html, re.DOTALL)
  digests = (hashlib.sha256(text.encode()).digest() for text in found)
  return ' '.join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
