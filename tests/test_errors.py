"""Names as they are shown, and errors as they are told."""

import os

import pytest

from jaxvision.errors import UserError, printable


@pytest.mark.parametrize(
  ('name', 'shown'),
  [
    ('plain name.png', 'plain name.png'),
    ('Käse 猫 👩\u200d🔬.png', 'Käse 猫 👩\u200d🔬.png'),
    ('\x1b[2Ja\r\n\t\x7f\x9b', r'\x1b[2Ja\r\n\t\x7f\x9b'),
    (os.fsdecode(b'caf\xe9.png'), r'caf\xe9.png'),
    ('a\u202egnp.exe\u2028', r'a\u202egnp.exe\u2028'),
    ('\ud800', r'\ud800'),
  ],
)
def test_names_are_shown_without_what_a_terminal_obeys(name, shown):
  assert printable(name) == shown
  assert printable(shown) == shown  # escaped once, however often it is asked for
  printable(name).encode('utf-8')
  assert str(UserError(f'cannot read {name}')) == f'cannot read {shown}'
