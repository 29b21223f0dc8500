// The same question outside of this page: for a shell, for Python.

import { address, getKey } from './api.js';

/** A word of a POSIX shell, whatever is in it. */
const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A literal of Python. JSON's strings and numbers are; its three words are not. */
function python(value) {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null) return 'None';
  if (typeof value === 'object') {
    return `{${Object.entries(value).map(([k, v]) => `${python(k)}: ${python(v)}`).join(', ')}}`;
  }
  return JSON.stringify(value);
}

/** A command for a shell in the picture's folder. The key is taken from FOVEA_API_KEY, never written out. */
export function curl(skill, body, picture) {
  const lines = [`curl -s ${shell(address(`v1/${skill}`))}`, `-H 'Content-Type: application/json'`];
  if (getKey()) lines.push('-H "Authorization: Bearer $FOVEA_API_KEY"');
  if (body.stream) lines[0] += ' -N';
  if (!picture) return [...lines, `-d ${shell(JSON.stringify(body))}`].join(' \\\n  ');
  // A picture does not fit on a command line: it goes through a pipe, in the middle of the JSON.
  const [before, after] = JSON.stringify({ ...body, image_url: '\u0000' }).split('\\u0000');
  const file = shell(picture.name.startsWith('-') ? `./${picture.name}` : picture.name);
  const json =
    `{ printf %s ${shell(`${before}data:${picture.blob.type};base64,`)}\n` +
    `  base64 < ${file} | tr -d '\\n'\n` +
    `  printf %s ${shell(after)}; } |\n`;
  return json + [...lines, '--data-binary @-'].join(' \\\n  ');
}

/** A script for the official client (`pip install moondream`), run in the picture's folder. */
export function pythonScript(skill, body, picture) {
  const { model, settings, question, object, length, reasoning } = body;
  const lines = ['import moondream as md'];
  if (getKey()) lines.unshift('import os', '');
  if (picture) lines.push('from PIL import Image, ImageOps');
  const made = [`endpoint=${python(address('v1'))}`];
  if (getKey()) made.push('api_key=os.environ["FOVEA_API_KEY"]');
  if (model) made.push(`model=${python(model)}`);
  lines.push('', `model = md.vl(${made.join(', ')})`);
  if (picture) {
    // The client does not turn pictures as their EXIF data says; coordinates would be off.
    lines.push(`image = ImageOps.exif_transpose(Image.open(${python(picture.name)}))`);
  }
  const given = [];
  if (picture) given.push(skill === 'query' ? 'image=image' : 'image');
  if (question !== undefined) given.push(`question=${python(question)}`);
  if (object !== undefined) given.push(python(object));
  if (length !== undefined) given.push(`length=${python(length)}`);
  if (reasoning) given.push('reasoning=True');
  if (settings) given.push(`settings=${python(settings)}`);
  const key = { query: 'answer', caption: 'caption', detect: 'objects', point: 'points' }[skill];
  lines.push(`print(model.${skill}(${given.join(', ')})[${python(key)}])`);
  return lines.join('\n') + '\n';
}

/** Puts text on the clipboard; false when the browser does not let it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// Pages from plain http addresses other than this machine's have no navigator.clipboard.
function copyBySelection(text) {
  const area = document.createElement('textarea');
  const before = document.activeElement;
  area.value = text;
  area.className = 'hidden';
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  before?.focus();
  return done;
}
