// Numbers as people read them.

/** Milliseconds: "0.4 ms", "38 ms", "1.24 s", "1 min 5 s". */
export function duration(ms) {
  if (!Number.isFinite(ms)) return '';
  if (ms < 0.05) return '0 ms';
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Bytes: "812 B", "18.4 kB", "3.2 MB". */
export function bytes(count) {
  if (count < 1000) return `${count} B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(count < 1e5 ? 1 : 0)} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}

/** "1 token", "2 tokens", "1,024 tokens". */
export const count = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;

/** A file name without folder, ending and anything that a shell or a file system minds. */
export function slug(text, most = 40) {
  const plain = text.normalize('NFKD').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '');
  return plain.slice(0, most).replace(/-+$/, '') || 'picture';
}
