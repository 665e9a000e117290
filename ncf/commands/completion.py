"""Scripts that complete a command line in a shell, made from the signatures that the help is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ncf.commands.choices import NO_FILES, OPEN, Option, everywhere, options_of

Verbs = Mapping[str, Callable[..., Any]]
FREE = "shell"  # the one value without a name that is no file

BASH = r"""# completion of ncf in bash:  source <(ncf completion bash)
_ncf() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} option= before= words=
    COMPREPLY=()
    if (( COMP_CWORD == 1 )) || [[ $verb == help ]]; then
        COMPREPLY=($(compgen -W "@VERBS@ help" -- "$cur"))
        return
    fi
    if [[ $cur == "=" ]]; then
        option=$prev cur=
    elif [[ $prev == "=" ]]; then
        option=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ $cur == --*=* ]]; then
        option=${cur%%=*} before=${cur%%=*}= cur=${cur#*=}
    elif [[ $prev == --* && $cur != --* && " @BARE@ " != *" $prev "* ]]; then
        option=$prev
    fi
    if [[ -n $option ]]; then
        case "$verb $option" in
@VALUES@
        esac
        COMPREPLY=($(compgen -P "$before" -W "$words" -- "$cur"))
    elif [[ $cur == -* ]]; then
        case $verb in
@OPTIONS@
        esac
        COMPREPLY=($(compgen -W "$words @COMMON@" -- "$cur"))
        [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
    elif [[ $verb == completion ]]; then
        COMPREPLY=($(compgen -W "@SHELLS@" -- "$cur"))
    fi
    return 0
}
complete -o bashdefault -o default -F _ncf ncf
"""

ZSH = r"""#compdef ncf
# completion of ncf in zsh:  source <(ncf completion zsh)
_ncf() {
    local -a verbs
    verbs=(
@VERBS@
    )
    if (( CURRENT == 2 )); then
        _describe command verbs
        return
    fi
    local verb=$words[2]
    shift words
    (( CURRENT-- ))
    case $verb in
@CASES@
    help) _describe command verbs ;;
    esac
}
if [[ $funcstack[1] == _ncf ]]; then
    _ncf "$@"
elif (( $+functions[compdef] )); then
    compdef _ncf ncf
fi
"""

FISH = r"""# completion of ncf in fish:  ncf completion fish | source
complete -c ncf -n __fish_use_subcommand -f
"""


def script(shell: str, verbs: Verbs) -> str:
    """Return the script for a shell.

    Args:
        shell: one of `ncf.commands.choices.SHELLS`.
        verbs: the commands by name.
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](verbs)


def _bash(verbs: Verbs) -> str:
    values, options = [], []
    for verb, call in verbs.items():
        named = [option for option in options_of(call) if not option.free]
        values += [f'            "{verb} --{o.name}") words="{" ".join(o.choices)}" ;;' for o in named if o.choices]
        offered = " ".join(f"--{option.name}=" for option in named)
        options.append(f'            {verb}) words="{offered}" ;;')
    common = [f"--{option.name}{'' if option.bare else '='}" for option in everywhere()]
    shells = next(o.choices for call in verbs.values() for o in options_of(call) if o.name == FREE)
    filled = BASH.replace("@VERBS@", " ".join(verbs)).replace("@VALUES@", "\n".join(values))
    filled = filled.replace("@OPTIONS@", "\n".join(options)).replace("@COMMON@", " ".join([*common, "--help"]))
    bare = " ".join(f"--{option.name}" for option in everywhere() if option.bare)
    return filled.replace("@BARE@", bare).replace("@SHELLS@", " ".join(shells))


def _zsh(verbs: Verbs) -> str:
    rows = [f"        {_quoted(f'{verb}:{_first(call)}')}" for verb, call in verbs.items()]
    cases = []
    for verb, call in verbs.items():
        rows_of = [_zsh_row(option) for option in [*options_of(call), *everywhere()]]
        told = " \\\n            ".join(["_arguments -S", *rows_of])
        cases.append(f"    {verb})\n        {told} ;;")
    return ZSH.replace("@VERBS@", "\n".join(rows)).replace("@CASES@", "\n".join(cases))


def _zsh_row(option: Option) -> str:
    """Write an option, or a value without a name, as zsh's _arguments takes it."""
    action = f"({' '.join(option.choices)})" if option.choices else "_files"
    if option.choices and option.name in OPEN:
        action = f"{{compadd {' '.join(option.choices)}; _files}}"
    elif option.name in NO_FILES:
        action = " "
    if option.free:
        return _quoted(f"{'*' if option.many else ''}:{option.name}:{action}")
    sentence = "".join(f"\\{c}" if c in "[]:" else c for c in _sentence(option))
    if option.bare:
        return _quoted(f"--{option.name}[{sentence}]")
    return _quoted(f"--{option.name}=[{sentence}]:value:{action}")


def _fish(verbs: Verbs) -> str:
    lines = []
    for verb, call in verbs.items():
        lines.append(f"complete -c ncf -n __fish_use_subcommand -a {verb} -d {_quoted(_first(call))}")
        seen = _quoted(f"__fish_seen_subcommand_from {verb}")
        for option in [*options_of(call), *everywhere()]:
            given = f" -a {_quoted(' '.join(option.choices))}" if option.choices else ""
            closed = option.name in NO_FILES or (option.choices and option.name not in OPEN)
            if option.free:
                lines += [f"complete -c ncf -n {seen} -f{given}"] if given else []
                continue
            takes = "" if option.bare else " -x" if closed else " -r"
            lines.append(f"complete -c ncf -n {seen} -l {option.name}{takes}{given} -d {_quoted(_sentence(option))}")
    return FISH + "\n".join(lines) + "\n"


def _first(call: Callable[..., Any]) -> str:
    """Return the first line of a docstring."""
    return (call.__doc__ or "").partition("\n")[0]


def _sentence(option: Option) -> str:
    """Return what an option is for, up to the first end of a sentence."""
    return option.sentence.partition("; ")[0].partition(". ")[0].rstrip(".")


def _quoted(text: str) -> str:
    """Return a text as one word of any of the three shells."""
    return "'" + text.replace("'", "'\\''") + "'"
