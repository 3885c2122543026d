// The confusion matrix on a canvas: hover a cell for its count, click it to list its mistakes.
(() => {
  const root = document.getElementById('matrix');
  const board = root.querySelector('.board');
  const [cells, above, beside] = ['cells', 'above', 'beside']
    .map((name) => root.querySelector(`canvas.${name}`));
  const [rowMark, columnMark, cursor, tip] = ['row-mark', 'column-mark', 'cursor', 'tip']
    .map((name) => root.querySelector(`.${name}`));
  const [order, scale, alone] = ['order', 'scale', 'alone']
    .map((name) => root.querySelector(`[name=${name}]`));
  const readout = root.querySelector('.readout');
  const {names} = report;
  const number = names.length;
  const entries = [];
  for (let i = 0; i < report.cells.length; i += 3) entries.push(report.cells.slice(i, i + 3));
  const counts = new Map(entries.map(([row, column, count]) => [row * number + column, count]));
  const count = (row, column) => counts.get(row * number + column) ?? 0;
  const support = new Array(number).fill(0);
  for (const [row, , n] of entries) support[row] += n;
  const share = (row, column) => support[row] ? count(row, column) / support[row] : 0;

  const listed = names.map((_, index) => index);
  const collator = new Intl.Collator(undefined, {numeric: true});
  const orders = {
    listed,
    name: [...listed].sort((a, b) => collator.compare(names[a], names[b])),
    alike: report.alike,
    recall: [...listed].sort((a, b) => share(a, a) - share(b, b)),
  };
  let zoom = 1, size = 10, classes = listed, places = listed, selected = null;

  const context = (canvas, width, height) => {
    // Sharp on dense screens, within the size of canvas that phones allow.
    const dense = Math.min(devicePixelRatio || 1, 4096 / Math.max(width, height));
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const drawing = canvas.getContext('2d');
    drawing.scale(canvas.width / width, canvas.height / height);
    return drawing;
  };
  const shortened = (drawing, text, room) => {
    const line = text.replace(/\s+/g, ' ');
    if (drawing.measureText(line).width <= room) return line;
    const letters = [...line];
    while (letters.length && drawing.measureText(`${letters.join('')}…`).width > room) letters.pop();
    return `${letters.join('')}…`;
  };
  const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const ramp = (colours) => (at) => {  // share of the ramp -> [red, green, blue]
    const place = Math.min(1, Math.max(0, at)) * (colours.length - 1);
    const low = Math.min(Math.floor(place), colours.length - 2);
    return colours[low].map((c, i) => c + (place - low) * (colours[low + 1][i] - c));
  };

  const draw = () => {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const shade = ramp(colour('--ramp').split(/\s+/).map(channels));
    classes = orders[order.value];
    places = new Array(number);
    classes.forEach((index, place) => { places[index] = place; });

    const narrow = board.clientWidth < 480;
    const family = style.fontFamily;
    const measure = above.getContext('2d');
    const room = board.clientWidth;
    const fits = (side) => Math.floor((room - side) / number);
    const least = number <= 150 ? (narrow ? 11 : 9) : number <= 400 ? 6 : 3;
    const most = narrow ? 150 : 200;
    const font = (pixels) => `${Math.max(9, Math.min(13, pixels - 1))}px ${family}`;
    const longest = (limit) => {
      measure.font = font(size);
      return Math.ceil(Math.min(limit, Math.max(...names.map((n) => measure.measureText(n).width)))) + 8;
    };
    size = Math.max(least, Math.min(narrow ? 34 : 52, fits(most)));
    size = Math.max(least, Math.min(narrow ? 34 : 52, fits(longest(narrow ? 84 : 160))));
    size = Math.max(3, Math.round(size * zoom));
    const side = longest(narrow ? 84 : 160);
    const upright = longest(200) > size;  // names do not fit across a column
    const top = upright ? longest(narrow ? 84 : 130) : 24;
    const length = size * number;

    const value = scale.value === 'share' ? share : count;
    const shown = entries.filter(([row, column]) => !alone.checked || row !== column);
    const largest = scale.value === 'share' && !alone.checked ? 1
      : shown.reduce((most, [row, column]) => Math.max(most, value(row, column)), 0);
    root.querySelector('.largest').textContent =
      scale.value === 'share' ? percent(largest) : largest.toLocaleString('en');

    const inside = context(cells, length, length);
    const gap = size >= 14 ? 1 : 0;  // lines between small cells would dominate
    const nothing = `rgb(${shade(0)})`;
    inside.fillStyle = gap ? colour('--line') : nothing;
    inside.fillRect(0, 0, length, length);
    for (let row = 0; row < number; row++) {
      const empty = !support[classes[row]];  // no examples
      inside.fillStyle = empty ? colour('--line') : nothing;
      if (empty) inside.fillRect(0, row * size, length, size);
      else for (let column = 0; gap && column < number; column++) {
        inside.fillRect(column * size, row * size, size - gap, size - gap);
      }
    }
    inside.textAlign = 'center';
    inside.textBaseline = 'middle';
    for (const [row, column, n] of shown) {
      const [x, y] = [places[column] * size, places[row] * size];
      const rgb = shade(Math.sqrt(value(row, column) / largest));
      inside.fillStyle = `rgb(${rgb.map(Math.round)})`;
      inside.fillRect(x, y, size - gap, size - gap);
      const letters = Math.min(13, (size - 4) / (0.6 * String(n).length));
      if (size < 20 || letters < 8) continue;
      inside.font = `${letters}px ${family}`;
      inside.fillStyle = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] < 140 ? '#ffffff' : '#10151b';
      inside.fillText(n, x + size / 2, y + size / 2);
    }

    const every = Math.max(1, Math.ceil(10 / (size + 1)));  // names may not overlap
    const left = context(beside, side, length);
    const head = context(above, length, top);
    for (const [drawing, wide] of [[left, side], [head, upright ? top : size]]) {
      drawing.font = font(size);
      drawing.fillStyle = colour('--ink');
      drawing.textBaseline = 'middle';
      classes.forEach((index, place) => {
        if (place % every) return;
        const middle = (place + 0.5) * size;
        drawing.save();
        if (drawing === left) {
          drawing.textAlign = 'right';
          drawing.translate(side - 5, middle);
        } else if (upright) {
          drawing.translate(middle, top - 5);
          drawing.rotate(-Math.PI / 2);
        } else {
          drawing.textAlign = 'center';
          drawing.translate(middle, top / 2);
        }
        drawing.fillText(shortened(drawing, names[index], wide - 7), 0, 0);
        drawing.restore();
      });
    }
    root.querySelector('.corner span').hidden = side < 68 || top < 34;
    root.style.setProperty('--side', `${side}px`);
    root.style.setProperty('--top', `${top}px`);
    mark(selected);
  };

  const describe = ([row, column]) => {
    const n = count(row, column);
    const what = row === column ? 'predicted correctly' : `predicted as ${names[column]}`;
    return support[row]
      ? `${names[row]} ${what}: ${n.toLocaleString('en')} of ${support[row].toLocaleString('en')} (${percent(n / support[row])})`
      : `${names[row]}: no examples`;
  };
  const mark = (cell) => {
    for (const part of [rowMark, columnMark, cursor]) part.hidden = !cell;
    if (!cell) return;
    const [y, x] = cell.map((index) => places[index] * size);
    Object.assign(cursor.style, {left: `${x}px`, top: `${y}px`, width: `${size}px`, height: `${size}px`});
    Object.assign(rowMark.style, {top: `${y}px`, height: `${size}px`, width: `${size * number}px`});
    Object.assign(columnMark.style, {left: `${x}px`, width: `${size}px`, height: `${size * number}px`});
  };
  const at = (event) => {
    const box = cells.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((p) => Math.floor(p / size));
    const inside = Math.min(x, y) >= 0 && Math.max(x, y) < number;
    return inside ? [classes[y], classes[x]] : null;
  };

  const field = cells.parentElement;
  field.addEventListener('pointermove', (event) => {
    const cell = event.pointerType === 'mouse' ? at(event) : null;
    mark(cell ?? selected);
    tip.hidden = !cell;
    if (!cell) return;
    tip.textContent = describe(cell);
    const box = root.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${y + 18}px`;
  });
  field.addEventListener('pointerleave', () => { tip.hidden = true; mark(selected); });

  const read = (cell) => {
    selected = cell;
    mark(cell);
    readout.textContent = describe(cell);
  };
  const pick = (cell) => {
    read(cell);
    const [row, column] = cell;
    if (!mistakes || (row !== column && !count(row, column))) return;
    const pictured = mistakes.pick(row, row === column ? null : column);
    const link = document.createElement('a');
    link.href = '#mistakes';
    const whose = row === column ? ` of the mistakes of ${names[row]}` : '';
    link.textContent = pictured ? `${pictured}${whose} shown below` : '';
    readout.append(pictured ? '. ' : '. None is shown.', link);
  };
  field.addEventListener('click', (event) => {
    const cell = at(event);
    if (cell) pick(cell);
  });
  board.addEventListener('keydown', (event) => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    const chosen = selected ?? [classes[0], classes[0]];
    if (step) {
      const place = (i) => Math.min(number - 1, Math.max(0, places[chosen[i]] + step[i]));
      read(selected ? [classes[place(0)], classes[place(1)]] : chosen);
      cursor.scrollIntoView({block: 'nearest', inline: 'nearest', behavior: 'instant'});
    } else if (event.key === 'Enter' || event.key === ' ') {
      pick(chosen);
    } else {
      return;
    }
    event.preventDefault();
  });

  root.querySelector('.filters').addEventListener('change', draw);
  for (const [button, factor] of [['.smaller', 1 / 1.4], ['.larger', 1.4]]) {
    root.querySelector(button).addEventListener('click', () => {
      zoom = Math.min(6, Math.max(0.3, zoom * factor));
      draw();
    });
  }
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  let width = 0;
  new ResizeObserver(() => {
    if (width !== board.clientWidth) { width = board.clientWidth; draw(); }
  }).observe(board);
})();
