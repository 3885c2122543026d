// The predictions for one picture: the best in large, the first five as bars.
// Rows are made once and filled again, so that a camera's frames do not rebuild them.
function makeRows() {
  const count = page.kind === 'regression' ? page.class_names.length : Math.min(SHOWN, page.class_names.length);
  for (let i = 0; i < count; i++) {
    byId('ranking').append(element('li', {},
      element('span', {class: 'name', dir: 'auto'}), element('span', {class: 'value'}),
      element('span', {class: 'track', 'aria-hidden': 'true'}, element('span'))));
  }
}

const shownValue = (value) => page.kind === 'regression' ?
  Number(value.toPrecision(4)).toString() : percent(value);

function showPredictions(predictions) {
  const largest = Math.max(...predictions.map(({value}) => Math.abs(value)), 1e-12);
  [...byId('ranking').children].forEach((row, i) => {
    const one = predictions[i];
    row.hidden = !one;
    if (!one) return;
    const [name, value, track] = row.children;
    name.textContent = name.title = one.name;
    value.textContent = shownValue(one.value);
    const share = page.kind === 'regression' ? Math.abs(one.value) / largest : one.value;
    track.firstChild.style.width = percent(share, 2);
  });
  byId('results').dataset.state = 'shown';
  const [best] = predictions;
  byId('best').textContent = page.kind === 'regression' ? '' : best.name;
  byId('confidence').textContent = page.kind === 'regression' ? '' : percent(best.value);
}

// What a screen reader says of a picture.
function summary(name, predictions) {
  const said = page.kind === 'regression' ? predictions : predictions.slice(0, 2);
  const parts = said.map((one) => `${one.name} ${shownValue(one.value)}`);
  return `${name}: ${parts.join(', then ')}.`;
}
