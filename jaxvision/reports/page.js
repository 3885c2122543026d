// Behaviour of every page: sorting, search, copying. Controls that need a script have the
// class `scripted` and are hidden without one.
document.documentElement.classList.add('has-script');
for (const part of document.querySelectorAll('.scripted')) part.hidden = false;

for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  const names = new Intl.Collator(undefined, {numeric: true});
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
    const sign = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    for (const other of heads) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((one, two) => {
      const [a, b] = [value(one, column), value(two, column)];
      return sign * (typeof a === 'string' ? names.compare(a, b) : a - b);
    });
    body.append(...rows);
  }));
}

// A search field filters the table that it names by the text of the first cell.
for (const field of document.querySelectorAll('input[data-narrows]')) {
  const rows = [...document.getElementById(field.dataset.narrows).tBodies[0].rows];
  const count = field.closest('.filters').querySelector('output');
  field.addEventListener('input', () => {
    const wanted = field.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    count.textContent = shown ? `${shown} of ${rows.length}` : 'No name matches.';
  });
}

for (const box of document.querySelectorAll('.command')) {
  const [code, button] = [box.querySelector('code'), box.querySelector('button')];
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    } catch {  // no clipboard: select the text instead
      getSelection().selectAllChildren(code);
    }
  });
}

if (matchMedia('(prefers-reduced-motion: reduce)').matches) {
  for (const details of document.querySelectorAll('details.moving')) details.open = false;
}
