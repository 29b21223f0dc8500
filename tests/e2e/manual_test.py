"""Manual pages and completions say what the program's --help says: every command, every option."""

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import program
from program import executable, run

MAKE = Path(__file__).resolve().parents[2] / "tools" / "make_manual.py"


def help_of(words):
    """(commands, options) as the help lists them; read anew here, not by the script that is tested."""
    text = run(*words, "--help").out
    options = set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.MULTILINE))
    commands = []
    block = re.search(r"^Commands:\n((?:  .*\n|\n)*)|^Subcommands:\n((?:  .*\n|\n)*)", text, re.MULTILINE)
    if block:
        commands = re.findall(r"^  (\w[\w-]*)", block[1] or block[2], re.MULTILINE)
    return commands, options


def all_help(words=()):
    commands, options = help_of(words)
    found = {words: (commands, options)}
    for name in commands:
        found.update(all_help((*words, name)))
    return found


class Manual(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        subprocess.run([sys.executable, "-B", MAKE, "--fovea", executable(), "--out", cls.folder], check=True)
        cls.help = all_help()

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def test_there_is_help_to_compare_with(self):
        self.assertIn(("batch",), self.help)
        self.assertIn("--max-objects", self.help["detect",][1])

    def test_each_command_has_a_page_with_its_options(self):
        for words, (_, options) in self.help.items():
            page = (self.folder / "man" / ("-".join(["fovea", *words]) + ".1")).read_text().replace("\\-", "-")
            for option in options:
                self.assertIn(rf"\fB{option}\fR", page, words)

    @unittest.skipUnless(shutil.which("man") and shutil.which("groff"), "no man")
    def test_pages_are_well_formed(self):
        for page in sorted((self.folder / "man").iterdir()):
            finished = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], capture_output=True, text=True,
                                      env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
            self.assertEqual((finished.returncode, finished.stderr), (0, ""), page.name)
            self.assertIn("SYNOPSIS", finished.stdout)

    def complete_in_bash(self, line):
        """What bash offers behind this line."""
        words = line.split(" ")
        script = f"""source {self.folder}/bash/fovea
COMP_WORDS=({' '.join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
_fovea 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}" """
        finished = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True)
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))
        return set(finished.stdout.split())

    def test_bash_completes_commands_and_options(self):
        for words, (commands, options) in self.help.items():
            line = " ".join(["fovea", *words])
            self.assertTrue(options <= self.complete_in_bash(line + " --"), line)
            if commands:
                self.assertEqual(set(commands), self.complete_in_bash(line + " "), line)

    def test_bash_completes_values(self):
        self.assertEqual(self.complete_in_bash("fovea caption --length "), {"short", "normal", "long"})
        self.assertEqual(self.complete_in_bash("fovea batch in --skill d"), {"detect"})
        self.assertEqual(self.complete_in_bash("fovea caption --seed "), set())

    @unittest.skipUnless(shutil.which("fish"), "no fish")
    def test_fish_completes_commands_and_options(self):
        for words, (commands, options) in self.help.items():
            for rest, wanted in ((" --", options), (" ", set(commands))):
                line = " ".join(["fovea", *words]) + rest
                finished = subprocess.run(["fish", "--no-config", "-c",
                                           f"source {self.folder}/fish/fovea.fish; complete -C '{line}'"],
                                          capture_output=True, text=True)
                self.assertEqual(finished.stderr, "", line)
                offered = {each.split("\t")[0] for each in finished.stdout.splitlines()}
                self.assertTrue(wanted <= offered, (line, wanted - offered))

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_zsh_accepts_its_completion(self):
        finished = subprocess.run(["zsh", "-f", "-n", self.folder / "zsh" / "_fovea"], capture_output=True, text=True)
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))

    def test_zsh_names_commands_and_options(self):
        text = (self.folder / "zsh" / "_fovea").read_text()
        for words, (commands, options) in self.help.items():
            name = "_" + "_".join(["fovea", *words]) + ("_command" if words else "")
            body = re.search(rf"^{name}\(\) \{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
            self.assertIsNotNone(body, name)
            for option in options:
                self.assertRegex(body[1], rf"{option}\[")
            for command in commands:
                self.assertIn(f"'{command}:", body[1])


if __name__ == "__main__":
    program.main()
