#!/usr/bin/env python3
"""Makes manual pages and shell completions out of what the program says of itself.

    tools/make_manual.py --fovea build/release/fovea --out build/release/manual

asks the program for its --help, and for that of every command, and writes

    man/fovea.1, man/fovea-COMMAND.1    manual pages (gzip them for a package)
    bash/fovea, zsh/_fovea, fish/fovea.fish    completions of commands, options and files

So an option that the program has is in all of them.
"""

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

# The help writes what something is called in a column, and what it means behind it.
ROW = re.compile(r"^  (\S.*?)(?:  +(\S.*))?$")
OPTION = re.compile(r"^((?:-\w|--[\w-]+)(?:,(?:-\w|--[\w-]+))*)(?: (\S+?)(?::.*)?)?$")
# "short, normal or long", "auto, f32 or bf16; ...": the values that an option takes, at the beginning of its meaning.
CHOICES = re.compile(r"^(?:Of \w+: )?(\w[\w-]*(?:, \w[\w-]*)* or \w[\w-]*)(?:$|[;.])")


@dataclass
class Option:
    names: list
    value: str
    meaning: str
    group: str

    @property
    def takes_path(self):
        return re.match(r"(DIR|FILE|OUT|MODEL|PATH|NAME=PATH)\b", self.value) is not None

    @property
    def takes_folder(self):
        return self.value == "DIR"

    @property
    def choices(self):
        match = CHOICES.match(self.meaning) if self.value else None
        return re.split(r", | or ", match[1]) if match else []

    @property
    def repeats(self):
        return self.meaning.endswith("(repeatable)")


@dataclass
class Command:
    words: list  # after "fovea"
    summary: str = ""
    usage: str = ""
    arguments: list = field(default_factory=list)  # (name, meaning)
    options: list = field(default_factory=list)
    commands: list = field(default_factory=list)
    footer: list = field(default_factory=list)  # paragraphs
    examples: list = field(default_factory=list)

    @property
    def name(self):
        return "-".join(["fovea", *self.words])


def rows(lines):
    """(name, meaning) of the rows of one section; a meaning may go on in the next line."""
    found = []
    for line in lines:
        match = ROW.match(line)
        if match:
            found.append([match[1], match[2] or ""])
        elif line.strip() and found:
            found[-1][1] = (found[-1][1] + " " + line.strip()).strip()
    return found


def parse_help(words, text):
    command = Command(words)
    section, sections = "", {"": []}
    for line in text.splitlines():
        heading = re.match(r"^(\S.*):$", line)
        if heading:
            section = heading[1]
            sections[section] = []
        elif line.startswith("Usage: "):
            command.usage = line[len("Usage: "):]
        elif line and not line.startswith(" ") and section:
            command.footer.append(line)  # under the last section
        else:
            sections[section].append(line)
    command.summary = " ".join(line for line in sections.pop("") if line).strip()
    command.examples = [line.strip() for line in sections.pop("Examples", []) + sections.pop("Example", []) if line.strip()]
    command.arguments = rows(sections.pop("Arguments", []))
    commands = rows(sections.pop("Commands", []) + sections.pop("Subcommands", []))
    for group, lines in sections.items():
        for name, meaning in rows(lines):
            option = OPTION.match(name)
            if option is None:
                raise ValueError(f"fovea {' '.join(words)} --help: no option: {name!r}")
            command.options.append(Option(option[1].split(","), option[2] or "", meaning, group))
    command.commands = [name for name, _ in commands]
    return command


def read_commands(fovea):
    """All commands, the program itself first."""
    found = []

    def read(words):
        text = subprocess.run([fovea, *words, "--help"], check=True, capture_output=True, text=True).stdout
        command = parse_help(words, text)
        found.append(command)
        for name in command.commands:
            read([*words, name])

    read([])
    return found


# ---- manual pages


def roff(text):
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("~", r"\(ti").replace("^", r"\(ha")
    return re.sub(r"^\.", r"\&.", text)


def bold(text):
    return rf"\fB{roff(text)}\fR"


def option_head(option):
    head = ", ".join(bold(name) for name in option.names)
    return head + (rf" \fI{roff(option.value)}\fR" if option.value else "")


def manual_page(command, commands, version):
    out = [f'.TH {command.name.upper()} 1 "" "fovea {version}" "Fovea"', ".SH NAME",
           f"{roff(command.name)} \\- {roff(command.summary.rstrip('.'))}", ".SH SYNOPSIS", roff(command.usage)]
    if command.commands:
        out.append(".SH COMMANDS")
        for name in command.commands:
            other = next(each for each in commands if each.words == [*command.words, name])
            out += [".TP", bold(name), roff(other.summary) + ".", f"See {bold(other.name)}(1)."]
    if command.arguments:
        out.append(".SH ARGUMENTS")
        for name, meaning in command.arguments:
            out += [".TP", rf"\fI{roff(name)}\fR", roff(meaning)]
    if command.options:
        out.append(".SH OPTIONS")
        group = "Options"
        for option in command.options:
            if option.group != group:
                group = option.group
                out.append(f".SS {roff(group)}")
            out += [".TP", option_head(option), roff(option.meaning)]
    exit_codes = [text for text in command.footer if text.startswith("Exit codes:")]
    notes = [text for text in command.footer if text not in exit_codes]
    if notes:
        out.append(".SH NOTES")
        for text in notes:
            out += [roff(text), ".PP"]
        out.pop()
    if command.examples:
        out += [".SH EXAMPLES", ".nf", *map(roff, command.examples), ".fi"]
    out.append(".SH EXIT STATUS")
    if exit_codes:
        out.append(roff(exit_codes[0][len("Exit codes: "):]))
    else:
        out.append("0 when it worked, 1 when it failed, 2 for wrong usage.")
    out += [".SH SEE ALSO", ", ".join(f"{bold(each.name)}(1)" for each in commands if each is not command) + "."]
    return "\n".join(out) + "\n"


# ---- completions


def shell_quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def bash_completion(commands):
    cases = []
    for command in sorted(commands, key=lambda each: -len(each.words)):
        words = " ".join(name for option in command.options for name in option.names)
        values = []
        for option in command.options:
            if not option.value:
                continue
            names = "|".join(option.names)
            if option.choices:
                values.append(f"        {names}) COMPREPLY=($(compgen -W {shell_quote(' '.join(option.choices))} -- \"$cur\")); return ;;")
            elif option.takes_folder:
                values.append(f"        {names}) compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\")); return ;;")
            elif option.takes_path:
                values.append(f"        {names}) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;")
            else:
                values.append(f"        {names}) return ;;")
        body = []
        if values:
            body += ['      case "$prev" in', *values, "      esac"]
        body.append(f"      options={shell_quote(words)}")
        body.append(f"      commands={shell_quote(' '.join(command.commands))}")
        cases.append(f"    {shell_quote(' '.join(command.words))})\n" + "\n".join(body) + " ;;")
    known = " ".join(shell_quote(" ".join(command.words)) for command in commands if command.words)
    return f"""# bash completion of fovea; made by tools/make_manual.py
_fovea() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command="" options="" commands="" word longer known
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    longer="${{command:+$command }}$word"
    for known in {known}; do
      [ "$known" != "$longer" ] || command=$longer
    done
  done
  case "$command" in
{chr(10).join(cases)}
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
  elif [ -n "$commands" ]; then
    COMPREPLY=($(compgen -W "$commands" -- "$cur"))
  else
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}}
complete -F _fovea fovea
"""


def zsh_text(text):
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:").replace("'", "'\\''")


def zsh_option(option):
    action = ""
    if option.value:
        if option.choices:
            action = f":{zsh_text(option.value)}:({' '.join(option.choices)})"
        elif option.takes_folder:
            action = f":{zsh_text(option.value)}:_files -/"
        elif option.takes_path:
            action = f":{zsh_text(option.value)}:_files"
        else:
            action = f":{zsh_text(option.value)}: "
    others = "" if option.repeats or len(option.names) == 1 else f"({' '.join(option.names)})"
    star = "*" if option.repeats else ""
    return [f"'{others}{star}{name}[{zsh_text(option.meaning)}]{action}'" for name in option.names]


def zsh_completion(commands):
    out = ["#compdef fovea", "# zsh completion of fovea; made by tools/make_manual.py", ""]
    for command in commands:
        function = "_" + command.name.replace("-", "_") + ("_command" if command.words else "")
        out.append(f"{function}() {{")
        specs = [spec for option in command.options for spec in zsh_option(option)]
        if command.commands:
            out.append("  local -a commands=(")
            for name in command.commands:
                other = next(each for each in commands if each.words == [*command.words, name])
                out.append(f"    '{name}:{zsh_text(other.summary)}'")
            out.append("  )")
            specs += ["'1:command:->command'", "'*::arguments:->arguments'"]
        else:
            specs.append("'*:file:_files'")
        out.append("  local state line\n  typeset -A opt_args")
        out.append("  _arguments -C \\\n    " + " \\\n    ".join(specs))
        if command.commands:
            out.append("  case $state in\n    command) _describe command commands ;;\n    arguments)\n      case $line[1] in")
            for name in command.commands:
                out.append(f"        {name}) {'_' + '_'.join(['fovea', *command.words, name]).replace('-', '_')}_command ;;")
            out.append("      esac ;;\n  esac")
        out.append("}\n")
    out.append('_fovea "$@"')
    return "\n".join(out) + "\n"


def fish_quote(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish_completion(commands):
    out = ["# fish completion of fovea; made by tools/make_manual.py"]
    for command in commands:
        conditions = [f"__fish_seen_subcommand_from {word}" for word in command.words]
        if command.commands:
            inner = " ".join(command.commands)
            conditions.append(f"not __fish_seen_subcommand_from {inner}")
        condition = "; and ".join(conditions)
        begin = f"complete -c fovea -n {fish_quote(condition)}"
        for name in command.commands:
            other = next(each for each in commands if each.words == [*command.words, name])
            out.append(f"{begin} -f -a {name} -d {fish_quote(other.summary)}")
        for option in command.options:
            line = begin
            for name in option.names:
                line += f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
            if option.value:
                if option.choices:
                    line += f" -x -a {fish_quote(' '.join(option.choices))}"
                elif option.takes_folder:
                    line += " -x -a '(__fish_complete_directories)'"
                elif option.takes_path:
                    line += " -r -F"
                else:
                    line += " -x"
            out.append(line + f" -d {fish_quote(option.meaning)}")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Makes manual pages and shell completions from the program's --help")
    parser.add_argument("--fovea", required=True, help="the program")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    args = parser.parse_args()
    version = subprocess.run([args.fovea, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    commands = read_commands(args.fovea)
    files = {f"man/{command.name}.1": manual_page(command, commands, version) for command in commands}
    files["bash/fovea"] = bash_completion(commands)
    files["zsh/_fovea"] = zsh_completion(commands)
    files["fish/fovea.fish"] = fish_completion(commands)
    for name, text in files.items():
        path = args.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
