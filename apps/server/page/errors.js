// What went wrong, in words that say what to do about it.

const offline = () =>
  navigator.onLine || isLocal()
    ? `Nothing answers at ${location.host}. Is the server still running?`
    : 'This device is offline.';

const isLocal = () => /^(localhost|127\.|\[::1\])/.test(location.hostname);

const wait = (error) => (error.retryAfter === null ? '' : ` It asks to wait ${error.retryAfter} s.`);

/**
 * {title, detail, remedy} for an ApiError. `remedy` is what a button may offer: `again`, `key`,
 * `smaller` or null.
 */
export function explain(error) {
  const detail = error.message;
  switch (error.code) {
    case 'offline':
      return { title: 'No connection to the server.', detail: offline(), remedy: 'again' };
    case 'broken':
      return { title: 'The connection broke before the answer was complete.', detail: '', remedy: 'again' };
    case 'garbled':
      return { title: 'The server’s answer is not the JSON it should be.', detail, remedy: 'again' };
    case 'context_length_exceeded':
      return { title: 'Too long for this model.', detail, remedy: null };
    case 'image_decode_failed':
      return { title: 'The server cannot read this picture.', detail, remedy: null };
    case 'skill_not_supported':
      return { title: 'This model cannot do that.', detail, remedy: null };
  }
  switch (error.status) {
    case 400:
      return { title: 'The server does not take this request.', detail, remedy: null };
    case 401:
      return { title: 'This server wants a key.', detail, remedy: 'key' };
    case 403:
      return { title: 'This is not allowed here.', detail, remedy: null };
    case 404:
      return { title: 'The server does not have this.', detail, remedy: null };
    case 413:
      return { title: 'The picture is larger than this server takes.', detail, remedy: 'smaller' };
    case 429:
      return { title: 'The server is busy.', detail: sentence(detail) + wait(error), remedy: 'again' };
    case 503:
      return { title: 'The server is not ready.', detail: sentence(detail) + wait(error), remedy: 'again' };
    case 504:
      return { title: 'The server ran out of time.', detail, remedy: 'again' };
  }
  return { title: `The server failed${error.status ? ` (${error.status})` : ''}.`, detail, remedy: 'again' };
}

const sentence = (text) => (text && !/[.!?]$/.test(text) ? `${text}.` : text);
