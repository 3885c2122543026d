// Filters of the mistakes.
const report = JSON.parse(document.getElementById('report-data').textContent);
const percent = (share) => `${(100 * share).toFixed(1)}%`;

const mistakes = (() => {
  const form = document.getElementById('filter');
  if (!form) return null;  // there are no mistakes
  const {true: truth, predicted, name, confidence} = form.elements;
  const found = document.getElementById('found');
  const nothing = document.getElementById('nothing');
  const more = document.getElementById('more');
  const first = 48;  // shown before "Show more"
  const cards = [...document.querySelectorAll('#pictured > li')].map((card) => ({
    card,
    true: Number(card.dataset.true),
    predicted: Number(card.dataset.predicted),
    confidence: Number(card.dataset.confidence),
    names: [card.dataset.true, card.dataset.predicted]
      .map((index) => report.names[index].toLowerCase()).join('\n'),
  }));
  let limit = first;

  for (const [field, key] of [[truth, 'true'], [predicted, 'predicted']]) {
    const counts = new Map();
    for (const card of cards) counts.set(card[key], (counts.get(card[key]) ?? 0) + 1);
    for (const index of [...counts.keys()].sort((a, b) => a - b)) {
      field.add(new Option(`${report.names[index]} (${counts.get(index)})`, index));
    }
  }

  const show = () => {
    const wanted = name.value.trim().toLowerCase();
    const least = Number(confidence.value) / 100;
    const is = (field, index) => field.value === '' || Number(field.value) === index;
    const matches = cards.filter((card) => is(truth, card.true)
      && is(predicted, card.predicted) && card.confidence >= least
      && card.names.includes(wanted));
    const shown = new Set(matches.length > limit + 12 ? matches.slice(0, limit) : matches);
    for (const card of cards) card.card.hidden = !shown.has(card);
    found.textContent = matches.length === cards.length
      ? `${shown.size} of ${cards.length} mistakes shown, of ${report.mistakes.toLocaleString('en')} in all.`
      : `${matches.length} of ${cards.length} mistakes match`
        + (shown.size < matches.length ? `, ${shown.size} shown.` : '.');
    nothing.hidden = matches.length > 0;
    more.hidden = shown.size === matches.length;
    more.textContent = `Show ${matches.length - shown.size} more`;
    confidence.nextElementSibling.textContent = `${confidence.value}%`;
  };
  const filter = () => { limit = first; show(); };
  form.addEventListener('input', filter);
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('reset', () => setTimeout(filter));  // once the fields are reset
  more.addEventListener('click', () => { limit = Infinity; show(); });
  show();

  return {
    /** Shows the mistakes of a pair, or of a class if `second` is null; returns their number. */
    pick(index, second) {
      form.reset();
      const has = (field, value) => [...field.options].some((o) => o.value === String(value));
      const options = [[truth, index], ...(second === null ? [] : [[predicted, second]])];
      const match = cards.filter((card) => card.true === index
        && (second === null || card.predicted === second)).length;
      if (match) for (const [field, value] of options) if (has(field, value)) field.value = value;
      filter();
      return match;
    },
  };
})();
