// The dialog that asks for the server's key.

import { getKey, setKey } from './api.js';
import { byId, say } from './dom.js';

let asking = null;

/**
 * Asks for the key and keeps it for this tab; resolves to true when one was given. `refused` says
 * that the server did not take the one it got. Whoever asks while the dialog is open gets the same answer.
 */
export function askForKey({ refused = false } = {}) {
  asking ??= open(refused).finally(() => (asking = null));
  return asking;
}

function open(refused) {
  const dialog = byId('key-dialog');
  const field = byId('key-value');
  byId('key-forget').hidden = !getKey();
  say(byId('key-reason'), refused && getKey() ? 'The server did not take the last one.' : '');
  dialog.returnValue = '';
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      const given = field.value.trim();
      field.value = '';
      if (dialog.returnValue === 'forget') setKey('');
      const used = dialog.returnValue === 'use' && given !== '';
      if (used) setKey(given);
      byId('key').hidden = false;
      resolve(used);
    }, { once: true });
  });
}

byId('key-value').addEventListener('keydown', (event) => {
  // Enter means to use the key, not the form's first button.
  if (event.key !== 'Enter') return;
  event.preventDefault();
  byId('key-use').click();
});
