// One question and its answer in the history.

import { el, announce, download } from './dom.js';
import { explain } from './errors.js';
import { count, duration, slug } from './format.js';
import { findingsOf } from './marks.js';
import { annotatedPng } from './picture.js';
import { copyText, curl, pythonScript } from './snippets.js';
import { factsOf, timingBar, timingLegend } from './timing.js';

const NAMES = { query: 'Ask', caption: 'Caption', detect: 'Detect', point: 'Point' };

/**
 * An entry is {id, skill, text, body, picture, state, words, answer, error, began, took}:
 * `body` is the request without its picture, `state` running, done, stopped or failed, `words` what
 * was streamed so far, `took` the milliseconds as this page saw them.
 */
export class EntryView {
  #entry;
  #actions;

  /** `actions` has select, stop, again, smaller, key, remove and highlight; each gets the entry. */
  constructor(entry, actions) {
    this.#entry = entry;
    this.#actions = actions;
    this.node = el('li', { className: 'entry' });
  }

  /** Puts down all of it. `open` shows the details, `scale` and `firstTtft` compare with the neighbours. */
  render({ open, scale, firstTtft }) {
    const entry = this.#entry;
    const hadFocus = this.node.contains(document.activeElement) ? focusMark(document.activeElement) : null;
    this.node.className = `entry ${entry.state}${open ? ' open' : ''}`;
    this.node.replaceChildren(...[
      this.#heading(open),
      this.#answer(),
      entry.answer ? timingBar(entry.answer.usage, scale) : null,
      entry.state === 'running' ? this.#progress() : null,
      open && entry.answer ? this.#details(firstTtft) : null,
      open && entry.state !== 'running' ? this.#tools() : null,
    ].filter(Boolean));
    if (hadFocus) (this.node.querySelector(hadFocus) ?? this.node.querySelector('.question')).focus();
  }

  /** While it runs: the words so far, and the clock. Cheap, called often. */
  update() {
    const words = this.node.querySelector('.words');
    if (words) words.textContent = this.#entry.words;
    const clock = this.node.querySelector('.clock');
    if (clock) clock.textContent = duration(performance.now() - this.#entry.began);
  }

  #heading(open) {
    const entry = this.#entry;
    const known = entry.picture && entry.answer?.usage?.cached_tokens > 0;
    const title = entry.skill === 'caption' ? entry.body.length : entry.text;
    return el('h3', {},
      el('button', {
        type: 'button', className: 'question', 'aria-expanded': String(open),
        onclick: () => this.#actions.select(entry),
      },
      el('span', { className: 'skill' }, NAMES[entry.skill]),
      el('span', { className: 'title' }, title),
      el('span', { className: 'took figures' },
        known && entry.state === 'done' ? el('span', { className: 'known' }, 'picture remembered') : null,
        entry.state === 'running' || entry.state === 'failed' ? '' : duration(this.#total()))));
  }

  #total() {
    return this.#entry.answer?.usage?.total_ms ?? this.#entry.took;
  }

  #answer() {
    const entry = this.#entry;
    if (entry.state === 'failed') return this.#failure();
    const box = el('div', { className: 'answer' });
    if (entry.skill === 'caption' || entry.skill === 'query') {
      const text = entry.answer?.[entry.skill === 'caption' ? 'caption' : 'answer'] ?? entry.words;
      box.append(el('p', { className: 'words' }, text));
      if (entry.state === 'done' && !text) box.append(el('p', { className: 'quiet' }, 'The model said nothing.'));
    } else if (entry.answer) {
      box.append(this.#found());
    }
    if (entry.state === 'stopped') box.append(el('p', { className: 'quiet' }, 'Stopped.'));
    if (entry.answer?.finish_reason === 'length') {
      box.append(el('p', { className: 'quiet' }, 'Cut: the limit on tokens or objects was reached.'));
    }
    return box;
  }

  #found() {
    const entry = this.#entry;
    const findings = findingsOf(entry.answer);
    if (findings.length === 0) return el('p', { className: 'words' }, `No ${entry.text} found.`);
    const chips = findings.map((finding, index) => {
      const confidence = finding.confidence?.toFixed(2);
      const show = () => this.#actions.highlight(entry, index);
      const hide = () => this.#actions.highlight(entry, null);
      return el('li', {}, el('button', {
        type: 'button', className: 'chip figures', onmouseenter: show, onmouseleave: hide, onfocus: show, onblur: hide,
        onclick: show, title: placeOf(finding), 'data-index': index,
        'aria-label': `${entry.text} ${index + 1}, ${confidence ? `confidence ${confidence}, ` : ''}${placeOf(finding)}`,
      }, el('span', { className: 'index' }, String(index + 1)), confidence ?? ''));
    });
    return el('div', { className: 'found' },
      el('p', { className: 'words' }, `${findings.length} × ${entry.text}`),
      el('ol', { className: 'chips', 'aria-label': 'Findings with confidence' }, chips));
  }

  #failure() {
    const { title, detail, remedy } = explain(this.#entry.error);
    const again = (label, action) =>
      el('button', { type: 'button', className: 'plain remedy', onclick: () => action(this.#entry) }, label);
    return el('div', { className: 'answer failure' },
      this.#entry.words ? el('p', { className: 'words' }, this.#entry.words) : null,
      el('p', { className: 'error' }, el('strong', {}, title), detail ? ` ${detail}` : ''),
      remedy === 'again' ? again('Try again', this.#actions.again) : null,
      remedy === 'key' ? again('Enter the key', this.#actions.key) : null,
      remedy === 'smaller' ? again('Send a smaller copy', this.#actions.smaller) : null);
  }

  #progress() {
    const entry = this.#entry;
    return el('div', { className: 'progress' },
      el('span', { className: 'pulse', 'aria-hidden': 'true' }),
      el('span', { className: 'clock figures' }, duration(performance.now() - entry.began)),
      el('button', {
        type: 'button', className: 'plain stop', 'aria-label': `Stop: ${entry.text || 'caption'}`,
        onclick: () => this.#actions.stop(entry),
      }, 'Stop'));
  }

  #details(firstTtft) {
    const { answer, took } = this.#entry;
    const facts = factsOf(answer.usage, firstTtft);
    if (took) facts.push(`${duration(took)} round trip`);
    return el('div', { className: 'details' },
      timingLegend(answer.usage),
      el('p', { className: 'facts quiet figures' }, facts.join(' · ')),
      answer.reasoning?.text ? this.#thoughts(answer.reasoning) : null,
      el('details', { className: 'json' },
        el('summary', {}, 'Answer as JSON'),
        el('pre', { tabIndex: 0, 'aria-label': 'Answer as JSON' }, JSON.stringify(answer, null, 2))));
  }

  /** What the model thought, with the words that it looked at something for underlined. */
  #thoughts({ text, grounding = [] }) {
    const letters = [...text]; // The protocol counts code points.
    const node = el('p', { className: 'thoughts' });
    let at = 0;
    for (const { start_idx: start, end_idx: end, points } of grounding) {
      if (start < at) continue;
      node.append(letters.slice(at, start).join(''),
        el('mark', { title: count(points.length, 'place') }, letters.slice(start, end).join('')));
      at = end;
    }
    node.append(letters.slice(at).join(''));
    return el('details', { open: true }, el('summary', {}, 'Thoughts'), node);
  }

  #tools() {
    const entry = this.#entry;
    const copy = (name, label, text) => el('button', {
      type: 'button', className: 'plain', 'data-copy': name, 'aria-label': `Copy as ${label}`,
      onclick: async ({ currentTarget }) => confirmCopy(currentTarget, label, await copyText(text())),
    }, label);
    return el('div', { className: 'tools', role: 'group', 'aria-label': 'With this answer' },
      el('span', { className: 'quiet' }, 'Copy'),
      copy('curl', 'curl', () => curl(entry.skill, entry.body, entry.picture)),
      copy('python', 'Python', () => pythonScript(entry.skill, entry.body, entry.picture)),
      entry.answer ? copy('json', 'JSON', () => JSON.stringify(entry.answer, null, 2)) : null,
      el('span', { className: 'gap' }),
      findingsOf(entry.answer).length && entry.picture
        ? el('button', { type: 'button', className: 'plain', 'data-do': 'save', onclick: () => save(entry) }, 'Save picture')
        : null,
      el('button', { type: 'button', className: 'plain', 'data-do': 'again', onclick: () => this.#actions.again(entry) },
        'Ask again'),
      el('button', { type: 'button', className: 'plain', 'data-do': 'remove', onclick: () => this.#actions.remove(entry) },
        'Remove'));
  }
}

async function save(entry) {
  const label = entry.skill === 'query' ? '' : entry.text;
  const png = await annotatedPng(entry.picture, findingsOf(entry.answer), label);
  download(png, `${slug(entry.picture.name.replace(/\.[^.]*$/, ''))}-${slug(entry.text)}.png`);
}

function confirmCopy(button, label, done) {
  const text = done ? 'Copied' : 'Not allowed';
  announce(done ? `Copied as ${label}` : 'The browser does not allow copying');
  button.textContent = text;
  setTimeout(() => {
    if (button.textContent === text) button.textContent = label;
  }, 1500);
}

/** "left 12.7 %, top 7.4 %, ..." */
function placeOf(finding) {
  const part = (fraction) => `${(fraction * 100).toFixed(1)} %`;
  return 'x_min' in finding
    ? `left ${part(finding.x_min)}, top ${part(finding.y_min)}, right ${part(finding.x_max)}, bottom ${part(finding.y_max)}`
    : `left ${part(finding.x)}, top ${part(finding.y)}`;
}

/** A selector that finds the same control again after the entry was put down anew. */
function focusMark(node) {
  for (const name of ['data-copy', 'data-do', 'data-index']) {
    if (node.hasAttribute(name)) return `[${name}="${node.getAttribute(name)}"]`;
  }
  return `.${[...node.classList].join('.')}` === '.' ? '.question' : `.${[...node.classList].join('.')}`;
}
