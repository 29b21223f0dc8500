// Light, dark or as the system is. A classic script in the head: the choice is set before anything is
// painted. It is all that this page keeps beyond the tab.
(() => {
  const KEY = 'fovea-theme';
  const CHOICES = ['auto', 'light', 'dark'];
  const root = document.documentElement;

  // Storage may be forbidden; then the page follows the system until another theme is chosen.
  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const write = (choice) => {
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // Nothing to do: the choice lasts until the page is left.
    }
  };

  const set = (choice) => {
    if (choice === 'light' || choice === 'dark') root.dataset.theme = choice;
    else delete root.dataset.theme;
  };

  set(read());
  document.addEventListener('DOMContentLoaded', () => {
    const button = document.getElementById('theme');
    const say = () => (button.lastElementChild.textContent = root.dataset.theme ?? 'auto');
    button.addEventListener('click', () => {
      const next = CHOICES[(CHOICES.indexOf(root.dataset.theme ?? 'auto') + 1) % CHOICES.length];
      set(next);
      write(next);
      say();
    });
    say();
  });
})();
