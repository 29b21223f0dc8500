// Where an answer's time went, from the `usage` that the server adds to it.

import { el } from './dom.js';
import { count, duration } from './format.js';

const PHASES = [
  ['queue', 'queue', 'waiting for its turn'],
  ['picture', 'picture', 'decoding and cutting into crops'],
  ['vision', 'vision', 'the picture encoder'],
  ['prefill', 'prefill', 'picture and prompt, up to the first token'],
  ['decode', 'decode', 'all later tokens'],
];

/**
 * Phases that took time as [{key, name, hint, ms}], what they leave of the total last. Empty when
 * the server sends no times, as others that speak the protocol.
 */
export function phasesOf(usage) {
  if (!usage || !Number.isFinite(usage.total_ms)) return [];
  const phases = PHASES.map(([key, name, hint]) => ({ key, name, hint, ms: usage[`${key}_ms`] ?? 0 }));
  const rest = usage.total_ms - phases.reduce((sum, { ms }) => sum + ms, 0);
  if (rest > usage.total_ms * 0.02) {
    phases.push({ key: 'other', name: 'other', hint: 'between the phases', ms: rest });
  }
  return phases;
}

/**
 * The bar. `scale` is the time of its full width in ms: the slowest answer about the same picture,
 * so that bars compare at a glance.
 */
export function timingBar(usage, scale) {
  const phases = phasesOf(usage);
  if (phases.length === 0) return null;
  const spoken = phases.filter(({ ms }) => ms >= 0.05).map(({ name, ms }) => `${name} ${duration(ms)}`);
  const bar = el('div', { className: 'bar', role: 'img', 'aria-label': `Time: ${spoken.join(', ')}` });
  for (const { key, name, ms } of phases) {
    if (ms < 0.05) continue;
    const part = el('span', { className: `phase ${key}`, title: `${name} ${duration(ms)}` });
    part.style.width = `${(100 * ms) / scale}%`;
    bar.append(part);
  }
  return bar;
}

/** The bar's legend: each phase with its time. */
export function timingLegend(usage) {
  const phases = phasesOf(usage);
  if (phases.length === 0) return null;
  return el('dl', { className: 'legend' }, phases.map(({ key, name, hint, ms }) =>
    el('div', { title: hint },
      el('dt', {}, el('span', { className: `swatch ${key}` }), name),
      el('dd', { className: 'figures' }, duration(ms)))));
}

/** A sentence or two in figures: tokens, what was remembered, speed. */
export function factsOf(usage, firstTtft) {
  if (!usage) return [];
  const facts = [];
  if (Number.isFinite(usage.ttft_ms)) {
    const faster = usage.cached_tokens > 0 && firstTtft > usage.ttft_ms * 1.1
      ? `, ${duration(firstTtft)} when the picture was new` : '';
    facts.push(`first token after ${duration(usage.ttft_ms)}${faster}`);
  }
  const { prompt_tokens: prompt, completion_tokens: made, cached_tokens: cached } = usage;
  if (Number.isFinite(prompt)) {
    facts.push(cached > 0 ? `${cached.toLocaleString('en')} of ${count(prompt, 'prompt token')} remembered`
      : count(prompt, 'prompt token'));
  }
  if (Number.isFinite(made)) {
    // The first token belongs to the prefill.
    const rate = made > 1 && usage.decode_ms > 0 ? (made - 1) / (usage.decode_ms / 1000) : 0;
    facts.push(count(made, 'token') + (rate ? ` at ${rate < 100 ? rate.toFixed(1) : Math.round(rate).toLocaleString('en')} a second` : ''));
  }
  return facts;
}
