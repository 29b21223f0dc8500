// The history: questions and answers grouped by picture, newest first.

import { el } from './dom.js';
import { EntryView } from './entry.js';

export class History {
  #root;
  #actions;
  #groups = []; // {picture, node, list, entries}, newest first
  #views = new Map();
  #selected = null;

  /** `actions` as EntryView has them, and `show`, which brings back a picture. */
  constructor(root, actions) {
    this.#root = root;
    this.#actions = actions;
  }

  get selected() {
    return this.#selected;
  }

  /** All entries that still run, newest first. */
  get running() {
    return this.#groups.flatMap(({ entries }) => entries).filter(({ state }) => state === 'running')
      .sort((a, b) => b.id - a.id);
  }

  /** Puts a new entry on top of its picture's group, and the group on top. */
  add(entry) {
    const group = this.#groupOf(entry.picture);
    const view = new EntryView(entry, this.#actions);
    this.#views.set(entry, view);
    group.entries.unshift(entry);
    group.list.prepend(view.node);
  }

  /** Opens this entry's details and closes the other's; null closes all. */
  select(entry) {
    const before = this.#selected;
    this.#selected = entry;
    for (const each of new Set([before, entry])) if (each) this.#render(each);
  }

  /** The entry's state has changed: it and the bars beside it are put down anew. */
  changed(entry) {
    if (!this.#views.has(entry)) return;
    const { entries } = this.#find(entry);
    for (const each of entries) if (each === entry || each.answer) this.#render(each);
  }

  /** The entry's words or its clock have moved on. */
  update(entry) {
    this.#views.get(entry)?.update();
  }

  /** Takes the entry out; its picture's group goes with its last entry. */
  remove(entry) {
    const group = this.#find(entry);
    group.entries = group.entries.filter((each) => each !== entry);
    this.#views.get(entry).node.remove();
    this.#views.delete(entry);
    if (this.#selected === entry) this.#selected = null;
    if (group.entries.length === 0) {
      group.node.remove();
      this.#groups = this.#groups.filter((each) => each !== group);
    }
  }

  #find(entry) {
    return this.#groups.find(({ entries }) => entries.includes(entry));
  }

  #render(entry) {
    const { entries } = this.#find(entry);
    const usages = entries.map(({ answer }) => answer?.usage).filter(Boolean);
    this.#views.get(entry).render({
      open: entry === this.#selected,
      scale: Math.max(...usages.map(({ total_ms }) => total_ms || 0), 1e-3),
      firstTtft: Math.max(...usages.filter((usage) => !usage.cached_tokens).map((usage) => usage.ttft_ms || 0), 0),
    });
  }

  #groupOf(picture) {
    let group = this.#groups.find((each) => each.picture === picture);
    if (!group) {
      const list = el('ol', { className: 'entries' });
      group = { picture, list, entries: [], node: null };
      group.node = el('section', { className: 'group', 'aria-label': picture?.name ?? 'Without picture' },
        this.#title(picture), list);
      this.#groups.unshift(group);
    }
    // The group that one works in is on top.
    if (this.#root.firstChild !== group.node) this.#root.prepend(group.node);
    return group;
  }

  #title(picture) {
    if (!picture) return el('p', { className: 'group-title quiet' }, 'Without picture');
    return el('p', { className: 'group-title' },
      el('button', { type: 'button', className: 'plain', onclick: () => this.#actions.show(picture) },
        el('img', { src: picture.url, alt: '' }), picture.name));
  }
}
