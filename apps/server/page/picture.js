// A picture: from a file to what the server gets, and back as a file with marks on it.

import { drawMarks } from './marks.js';

/** The longest side of the first copy that is made when a server refuses a picture as too large. */
const SMALLER_SIDE = 2048;

/** What went wrong while opening a picture, in words for people. */
export class PictureError extends Error {}

/**
 * One picture of this session. `blob` is what is sent: the file's own bytes where the server reads
 * them. `width` and `height` are those of the upright picture, after EXIF turning, which is also
 * what coordinates refer to. `url` is for <img>; `note` says what was done to it, if anything.
 */
class Picture {
  #dataUrl = null;

  constructor(fields) {
    Object.assign(this, fields);
  }

  /** The data URI that goes into a request; made once. */
  dataUrl() {
    this.#dataUrl ??= new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(new PictureError(`${this.name} cannot be read any more.`));
      reader.readAsDataURL(this.blob);
    });
    return this.#dataUrl;
  }
}

/** Opens a file, pasted or dropped. Throws PictureError. */
export async function openPicture(blob, name) {
  const format = await sniff(blob);
  const url = URL.createObjectURL(blob);
  let image;
  try {
    image = await load(url);
  } catch {
    URL.revokeObjectURL(url);
    throw new PictureError(
      `${name} cannot be shown as a picture here. JPEG, PNG, WebP and GIF always work.`);
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  if (format === 'image/jpeg' || format === 'image/png' || format === 'image/webp') {
    // Pasted and dropped blobs may claim another type; the data URI should tell the truth.
    const sent = blob.type === format ? blob : new Blob([blob], { type: format });
    return new Picture({ name, blob: sent, url, width, height, note: '' });
  }
  // Moving pictures become their first frame, what the server does not read becomes PNG: one sees
  // what is asked about.
  const png = await encode(image, width, height, 'image/png');
  URL.revokeObjectURL(url);
  return new Picture({
    name: name.replace(/\.[^.]*$/, '') + '.png',
    blob: png,
    url: URL.createObjectURL(png),
    width,
    height,
    note: format === 'image/gif' ? 'first frame' : 'sent as PNG',
  });
}

/** A JPEG copy of at most 2048 pixels in width and height, or of half the size if it is no larger already. */
export async function smallerCopy(picture) {
  const image = await load(picture.url);
  const longest = Math.max(picture.width, picture.height);
  const scale = longest > SMALLER_SIDE ? SMALLER_SIDE / longest : 0.5;
  const width = Math.max(1, Math.round(picture.width * scale));
  const height = Math.max(1, Math.round(picture.height * scale));
  const blob = await encode(image, width, height, 'image/jpeg');
  return new Picture({
    name: picture.name.replace(/(-small)?\.[^.]*$/, '') + '-small.jpg',
    blob,
    url: URL.createObjectURL(blob),
    width,
    height,
    note: 'smaller copy',
  });
}

/** The picture in full size with the findings drawn on it, as a PNG. */
export async function annotatedPng(picture, findings, label) {
  const image = await load(picture.url);
  return encode(image, picture.width, picture.height, 'image/png', (context) =>
    drawMarks(context, findings, label));
}

async function load(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  // An SVG without a size of its own.
  if (!image.naturalWidth || !image.naturalHeight) throw new PictureError('no size');
  return image;
}

function encode(image, width, height, type, draw = () => {}) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  if (type === 'image/jpeg') {
    context.fillStyle = '#fff';
    context.fillRect(0, 0, width, height);
  }
  context.drawImage(image, 0, 0, width, height);
  draw(context);
  return new Promise((resolve, reject) =>
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new PictureError('The picture is too large for this browser.'))),
      type, 0.92));
}

/** The format by the first bytes, as the server tells it; empty for any other. */
async function sniff(blob) {
  const head = new Uint8Array(await blob.slice(0, 12).arrayBuffer());
  const text = String.fromCharCode(...head);
  if (text.startsWith('\xff\xd8\xff')) return 'image/jpeg';
  if (text.startsWith('\x89PNG\r\n\x1a\n')) return 'image/png';
  if (text.startsWith('RIFF') && text.slice(8) === 'WEBP') return 'image/webp';
  if (text.startsWith('GIF8')) return 'image/gif';
  return '';
}
