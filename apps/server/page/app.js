// The page: picture, question, history, and what holds them together.

import { ApiError, ask, getKey, models } from './api.js';
import { announce, byId, el, say } from './dom.js';
import { explain } from './errors.js';
import { bytes } from './format.js';
import { History } from './history.js';
import { askForKey } from './key.js';
import { findingsOf, highlight, showMarks } from './marks.js';
import { openPicture, PictureError, smallerCopy } from './picture.js';

const form = byId('ask');
let picture = null;
let nextId = 1;
const aborts = new Map(); // entry -> AbortController

const history = new History(byId('history'), {
  select: (entry) => selectEntry(entry === history.selected ? null : entry),
  stop: (entry) => aborts.get(entry)?.abort(),
  again: (entry) => (entry.state === 'failed' ? run(entry) : repeat(entry)),
  smaller: askSmaller,
  key: runWithKey,
  remove: (entry) => {
    aborts.get(entry)?.abort();
    history.remove(entry);
    selectEntry(history.selected);
    byId('text').focus();
  },
  highlight: (entry, index) => {
    if (entry !== history.selected) {
      if (index === null) return;
      selectEntry(entry);
    }
    highlight(byId('marks'), index);
  },
  show: (shown) => {
    showPicture(shown);
    selectEntry(null);
  },
});

// ---- the picture --------------------------------------------------------------------------------

async function take(blob, name) {
  say(byId('picture-error'), '');
  try {
    showPicture(await openPicture(blob, name));
    history.select(null);
    byId('text').focus({ preventScroll: true });
    announce(`${picture.name}, ${picture.width} by ${picture.height} pixels`);
  } catch (error) {
    if (!(error instanceof PictureError)) throw error;
    say(byId('picture-error'), error.message);
  }
}

function showPicture(shown) {
  picture = shown;
  byId('empty').hidden = Boolean(shown);
  byId('figure').hidden = !shown;
  showMarks(byId('marks'), [], '');
  if (!shown) return;
  byId('image').src = shown.url;
  byId('image').alt = shown.name;
  byId('frame').style.setProperty('--ratio', shown.width / shown.height);
  byId('picture-name').textContent = shown.name;
  byId('picture-facts').textContent =
    [`${shown.width} × ${shown.height}`, bytes(shown.blob.size), shown.note].filter(Boolean).join(' · ');
}

/** Opens an entry's details and shows what it found on its picture. */
function selectEntry(entry) {
  history.select(entry);
  if (entry && entry.picture !== picture) showPicture(entry.picture);
  showFindings(entry);
}

function showFindings(entry) {
  const label = entry && entry.skill !== 'query' ? entry.text : '';
  showMarks(byId('marks'), entry?.picture ? findingsOf(entry.answer) : [], label);
  highlight(byId('marks'), null);
}

const pictureActions = {
  choose: () => byId('file').click(),
  photograph: () => byId('camera').click(),
  close: () => {
    showPicture(null);
    history.select(null);
    byId('text').focus();
  },
  sample: async () => {
    try {
      const response = await fetch('page/harbour.png');
      if (!response.ok) throw new TypeError(response.statusText);
      await take(await response.blob(), 'harbour.png');
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      say(byId('picture-error'), 'The sample cannot be loaded: nothing answers at this address.');
    }
  },
};

for (const button of document.querySelectorAll('.stage [data-do]')) {
  button.addEventListener('click', () => pictureActions[button.dataset.do]());
}
for (const input of [byId('file'), byId('camera')]) {
  input.addEventListener('change', () => {
    const [file] = input.files;
    if (file) take(file, file.name);
    input.value = ''; // The same file may be chosen again.
  });
}

document.addEventListener('paste', (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith('image/'));
  if (!file) return;
  event.preventDefault();
  // Screenshots come under one and the same name.
  take(file, file.name === 'image.png' ? 'pasted.png' : file.name);
});

let dragDepth = 0;
const dragging = (depth) => {
  dragDepth = Math.max(0, depth);
  byId('drop').hidden = dragDepth === 0;
};
document.addEventListener('dragenter', (event) => {
  if ([...event.dataTransfer.types].includes('Files')) dragging(dragDepth + 1);
});
document.addEventListener('dragleave', () => dragging(dragDepth - 1));
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  dragging(0);
  const [file] = event.dataTransfer.files;
  if (file) take(file, file.name);
  else say(byId('picture-error'), 'That was no file. Save the picture first, then drop it here.');
});

// ---- asking -------------------------------------------------------------------------------------

const skill = () => form.elements.skill.value;

const SKILL_TEXTS = {
  query: { label: 'Question', placeholder: 'What is in this picture?', go: 'Ask', missing: 'Write a question first.' },
  caption: { go: 'Caption' },
  detect: { label: 'What to detect', placeholder: 'red car', go: 'Detect', missing: 'Write what to look for first.' },
  point: { label: 'What to point at', placeholder: 'door handle', go: 'Point', missing: 'Write what to look for first.' },
};

function skillChanged() {
  const texts = SKILL_TEXTS[skill()];
  byId('text').hidden = skill() === 'caption';
  byId('lengths').hidden = skill() !== 'caption';
  byId('go').textContent = texts.go;
  byId('text-label').textContent = texts.label ?? '';
  byId('text').placeholder = texts.placeholder ?? '';
  for (const field of form.querySelectorAll('[data-for]')) {
    field.hidden = !field.dataset.for.split(' ').includes(skill());
  }
  sayFormError('');
}

function sayFormError(text) {
  say(byId('form-error'), text);
  byId('text').toggleAttribute('aria-invalid', Boolean(text));
}

/** The request of the protocol, as the form stands, without the picture. */
function requestBody(text) {
  const fields = form.elements;
  const body = {};
  if (byId('model').options.length > 1) body.model = byId('model').value;
  if (skill() === 'query') body.question = text;
  if (skill() === 'caption') body.length = fields.namedItem('length').value;
  if (skill() === 'detect' || skill() === 'point') body.object = text;
  if (skill() === 'query' || skill() === 'caption') body.stream = true;
  if (skill() === 'query' && fields.reasoning.checked) body.reasoning = true;
  // Coordinates are to be those of the picture as it is seen here.
  if (picture) body.apply_exif = true;
  const settings = {};
  for (const name of ['temperature', 'max_tokens', 'max_objects']) {
    const field = fields.namedItem(name);
    if (field.value !== '' && !field.closest('[data-for]').hidden) settings[name] = field.valueAsNumber;
  }
  if (Object.keys(settings).length > 0) body.settings = settings;
  return body;
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  const text = skill() === 'caption' ? '' : byId('text').value.trim();
  if (!picture && skill() !== 'query') {
    sayFormError('Choose a picture first.');
    document.querySelector('#empty .primary').focus();
    return;
  }
  if (!text && skill() !== 'caption') {
    sayFormError(SKILL_TEXTS[skill()].missing);
    byId('text').focus();
    return;
  }
  sayFormError('');
  start({ skill: skill(), text, body: requestBody(text), picture });
  byId('text').select();
});
form.addEventListener('change', (event) => event.target.name === 'skill' && skillChanged());
byId('text').addEventListener('input', () => sayFormError(''));

function start({ skill, text, body, picture }) {
  const entry = { id: nextId++, skill, text, body, picture };
  reset(entry);
  history.add(entry);
  selectEntry(entry); // An older question asked again brings its picture back.
  run(entry);
}

const repeat = (entry) => start(entry);

function reset(entry) {
  Object.assign(entry, { state: 'running', words: '', answer: null, error: null, began: performance.now(), took: 0 });
}

async function askSmaller(entry) {
  const smaller = await smallerCopy(entry.picture);
  showPicture(smaller);
  start({ ...entry, picture: smaller });
}

/** Sends the entry's request and follows it to its end. */
async function run(entry) {
  reset(entry);
  const abort = new AbortController();
  aborts.set(entry, abort);
  history.changed(entry);
  const clock = setInterval(() => history.update(entry), 100);
  try {
    const body = { ...entry.body };
    if (entry.picture) body.image_url = await entry.picture.dataUrl();
    entry.answer = await ask(entry.skill, body, {
      signal: abort.signal,
      onChunk: (chunk) => {
        entry.words += chunk;
        history.update(entry);
      },
    });
    entry.state = 'done';
  } catch (error) {
    if (error.name === 'AbortError') entry.state = 'stopped';
    else if (error instanceof ApiError || error instanceof PictureError) Object.assign(entry, { state: 'failed', error });
    else throw error;
  } finally {
    clearInterval(clock);
    aborts.delete(entry);
    entry.took = performance.now() - entry.began;
  }
  finished(entry);
}

function finished(entry) {
  history.changed(entry);
  if (entry === history.selected) showFindings(entry);
  announce(spoken(entry));
  if (entry.error?.status === 401) runWithKey(entry);
}

async function runWithKey(entry) {
  if (!(await askForKey({ refused: true }))) return;
  if (byId('model-box').hidden) loadModels();
  run(entry);
}

function spoken(entry) {
  if (entry.state === 'failed') {
    const { title, detail } = explain(entry.error);
    return `${title} ${detail}`;
  }
  if (entry.state === 'stopped') return 'Stopped';
  const { caption, answer, objects, points } = entry.answer;
  return caption ?? answer ?? `${(objects ?? points ?? []).length} × ${entry.text}`;
}

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || byId('key-dialog').open) return;
  const [newest] = history.running;
  if (newest) aborts.get(newest).abort();
});

// ---- key and models ----------------------------------------------------------------------------

byId('key').hidden = !getKey();
byId('key').addEventListener('click', async () => {
  if ((await askForKey()) || !getKey()) loadModels();
});

/** Fills the choice of models; says what is wrong when the server cannot be asked. */
async function loadModels() {
  try {
    const list = await models();
    say(byId('banner'), '');
    byId('model').replaceChildren(...list.map(({ id, parent }) =>
      el('option', { value: id }, parent ? `${id} (adapter of ${parent})` : id)));
    byId('model-box').hidden = list.length === 0;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) {
      if (await askForKey({ refused: true })) loadModels();
      return;
    }
    const { title, detail } = explain(error);
    say(byId('banner'), `${title} ${detail}`);
    if (error.status === 503) {
      // A large model takes a while to load; the server says when to come back.
      setTimeout(loadModels, 1000 * (error.retryAfter ?? 2));
      return;
    }
    byId('banner').append(' ', el('button', { type: 'button', className: 'plain', onclick: loadModels }, 'Try again'));
  }
}

byId('server').textContent = location.host;
skillChanged();
loadModels();
