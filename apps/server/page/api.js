// The server's routes: models, and the four skills of the Moondream protocol, streamed or not.

const KEY = 'fovea-key';
// In memory as well: some browsers forbid storage.
let key = readKey();

function readKey() {
  try {
    return sessionStorage.getItem(KEY) ?? '';
  } catch {
    return '';
  }
}

/** The key that goes with every request; empty for none. Lives as long as this tab. */
export const getKey = () => key;

export function setKey(value) {
  key = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Then it is kept in memory only.
  }
}

/** Address of a route: relative to the page, so that a proxy may serve it below a path. */
export const address = (route) => new URL(route, document.baseURI).href;

/** What a request came to when it failed. `code` is the server's, or `offline`, `broken`, `garbled`. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = '', retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

async function send(route, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(address(route), { ...options, headers, cache: 'no-store' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('no connection', { code: 'offline' });
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // A proxy in between answers in its own words.
  }
  const wait = Number.parseInt(response.headers.get('Retry-After'), 10);
  return new ApiError(error.message ?? response.statusText, {
    status: response.status,
    code: error.code ?? '',
    retryAfter: Number.isFinite(wait) ? wait : null,
  });
}

/** Names of the models: [{id, parent}]; `parent` is set for an adapter. */
export async function models() {
  const { data = [] } = await (await send('v1/models')).json();
  return data.map(({ id, parent }) => ({ id, parent: parent ?? null }));
}

/**
 * Asks the server. `skill` is caption, query, detect or point, `body` the request of the protocol.
 * With `body.stream`, `onChunk` gets the words as they come. Returns the answer's object.
 * Throws ApiError, or an AbortError when `signal` says so.
 */
export async function ask(skill, body, { signal, onChunk }) {
  const response = await send(`v1/${skill}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  });
  try {
    const streams = (response.headers.get('Content-Type') ?? '').startsWith('text/event-stream');
    return streams ? await readStream(response.body, onChunk) : await response.json();
  } catch (error) {
    if (error.name === 'AbortError' || error instanceof ApiError) throw error;
    if (error instanceof SyntaxError) throw new ApiError(error.message, { code: 'garbled' });
    throw new ApiError('the connection broke', { code: 'broken' });
  }
}

/** Reads server-sent events until the completed one, which is the answer. */
async function readStream(stream, onChunk) {
  for await (const line of lines(stream)) {
    // Comments keep the connection alive; the protocol has one event on one line.
    if (!line.startsWith('data: ')) continue;
    const event = JSON.parse(line.slice(6));
    if (event.error) {
      throw new ApiError(event.error.message ?? '', { status: 500, code: event.error.code ?? '' });
    }
    if (event.chunk) onChunk(event.chunk);
    if (event.completed) return answerOf(event);
  }
  throw new ApiError('the stream ended early', { code: 'broken' });
}

/** The last event without what only a stream needs: the object that the same request unstreamed gives. */
function answerOf({ chunk, completed, token_index, ...answer }) {
  return answer;
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split(/\r?\n/);
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    // A reader that stops early lets go of the connection.
    reader.cancel().catch(() => {});
  }
}
