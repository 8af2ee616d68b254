//! What a line is, before anything is done: commands that only change the session, one program, or work for a shell.
//!
//! What isn't understood to the last character is work for a shell. A line is shown to the parser only when it is short and
//! free of what nests, so that no line can cost it much time or stack.

use std::collections::HashSet;

use brush_parser::ast::{
    AndOr, Command, CommandPrefixOrSuffixItem, Pipeline, Program, SeparatorOperator, SimpleCommand,
};
use brush_parser::{Parser, ParserOptions};

use super::dialect::Dialect;
use super::limits;
use super::state::State;

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Commands that a session may be able to carry out itself.
    Commands(Vec<(Joint, Words)>),
    /// One program, or several in a pipe: it changes nothing of a session.
    Program,
    /// Work for a shell, which may change anything.
    Shell {
        /// The parser finds it right: the shell won't have to quote it in a message about its syntax.
        is_right: bool,
    },
}

/// Work for a shell that may find fault with it.
const UNSURE: Reading = Reading::Shell { is_right: false };

/// A command's words as they are written, quotes and all.
pub(crate) type Words = Vec<String>;

/// What stands in front of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    /// `;`, or nothing: it is carried out.
    Then,
    /// `&&`
    And,
    /// `||`
    Or,
}

/// Commands that only change a session.
const SESSION: [&str; 10] =
    ["alias", "cd", "dirs", "exit", "export", "popd", "pushd", "pwd", "umask", "unalias"];

/// Reads a line. Line breaks behind it are none of its business: peers of plain wires send them.
pub(crate) fn read(line: &[u8], dialect: Dialect, state: &State) -> Reading {
    let end = line.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    let line = line.get(..end).unwrap_or(line);
    if dialect == Dialect::Other {
        return if is_directory_command(line) { parse(line, dialect, state) } else { Reading::Program };
    }
    parse(line, dialect, state)
}

/// Under a shell that nothing is known of, only the directory is kept.
fn is_directory_command(line: &[u8]) -> bool {
    matches!(
        line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()),
        Some(b"cd" | b"pwd" | b"exit")
    )
}

fn parse(line: &[u8], dialect: Dialect, state: &State) -> Reading {
    let Some((text, program)) = parsed(line, dialect) else { return UNSURE };
    let shell = Reading::Shell { is_right: true };
    if nests(text) {
        // bash is of another mind than the parser about some brackets: patterns, arithmetic.
        return if text.contains('(') { UNSURE } else { shell };
    }
    let mut commands = Vec::new();
    let mut pipes = Vec::new();
    for item in program.complete_commands.iter().flat_map(|list| &list.0) {
        if !matches!(item.1, SeparatorOperator::Sequence) {
            return shell;
        }
        pipes.push((Joint::Then, &item.0.first));
        pipes.extend(item.0.additional.iter().map(|next| match next {
            AndOr::And(pipeline) => (Joint::And, pipeline),
            AndOr::Or(pipeline) => (Joint::Or, pipeline),
        }));
    }
    if let [(Joint::Then, pipeline)] = pipes.as_slice()
        && !mentions_status(line)
        && is_program(pipeline, dialect, state)
    {
        return Reading::Program;
    }
    for (joint, pipeline) in pipes {
        match words(pipeline) {
            Some(words) if is_of_session(&words, state) => commands.push((joint, words)),
            _ => return shell,
        }
    }
    if commands.is_empty() { shell } else { Reading::Commands(commands) }
}

/// A line that may be shown to the parser, and what it finds; none also where it finds fault.
fn parsed(line: &[u8], dialect: Dialect) -> Option<(&str, Program)> {
    let text = std::str::from_utf8(line).ok()?;
    if text.len() > limits::LINE || depth(text) > limits::DEPTH || branches(text) > limits::BRANCHES {
        return None;
    }
    let options = ParserOptions { sh_mode: dialect == Dialect::Dash, ..ParserOptions::default() };
    // The parser logs the words that it sees, and there may be secrets among them.
    let program = tracing::dispatcher::with_default(&tracing::Dispatch::none(), || {
        Parser::new(text.as_bytes(), &options).parse_program()
    });
    Some((text, program.ok()?))
}

/// The command that a line begins with, if that is a `cd`.
pub(crate) fn first_cd(line: &[u8], dialect: Dialect) -> Option<Words> {
    let (_, program) = parsed(line, dialect)?;
    let first = program.complete_commands.first()?.0.first()?;
    words(&first.0.first).filter(|words| words.first().is_some_and(|name| name == "cd"))
}

/// A bound on how deep a line nests, by a look at its characters and words.
fn depth(text: &str) -> usize {
    let characters = text.chars().filter(|c| "({`[!$".contains(*c)).count();
    let words = text.split(|c: char| c.is_whitespace() || ";&|".contains(c));
    characters + words.filter(|word| RESERVED.contains(word)).count()
}

/// A bound on what the parser tries in two ways and at each level again: its time doubles with each.
fn branches(text: &str) -> usize {
    let cases = text.split(|c: char| c.is_whitespace() || ";&|".contains(c)).filter(|word| *word == "case");
    text.matches('(').count() + 2 * cases.count()
}

/// Words behind which a command may hold commands.
const RESERVED: [&str; 15] = [
    "if", "while", "until", "for", "case", "select", "function", "coproc", "then", "do", "else", "time", "!",
    "[[", "{",
];

/// Whether a line may ask how the one before it ended.
pub(crate) fn mentions_status(line: &[u8]) -> bool {
    [b"$?".as_slice(), b"${?", b"$status", b"${status", b"$pipestatus"]
        .iter()
        .any(|name| line.windows(name.len()).any(|part| part == *name))
}

/// Whether a line may end its shell: it says so, or calls what the session has defined and says so.
pub(crate) fn mentions_exit(line: &[u8], state: &State) -> bool {
    let words = |text: &'_ [u8]| -> HashSet<Vec<u8>> {
        let parts = text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_' && *byte != b'-');
        parts.map(<[u8]>::to_vec).collect()
    };
    let ends = |words: &HashSet<Vec<u8>>| [b"exit".as_slice(), b"bye"].iter().any(|end| words.contains(*end));
    let said = words(line);
    let mut defined = state.functions.iter().chain(&state.aliases);
    ends(&said) || defined.any(|(name, text)| said.contains(name) && ends(&words(text)))
}

/// Whether a line holds what may nest, by a look at its characters and words: too much rather than too little.
fn nests(text: &str) -> bool {
    text.contains(['(', ')', '`', '\n', '\r'])
        || text.split(|c: char| c.is_whitespace() || ";&|".contains(c)).any(|word| RESERVED.contains(&word))
        || text.match_indices('{').any(|(at, _)| !is_name_in_braces(text, at))
        || text.contains("<<")
}

/// Whether the brace at a place is that of `${NAME}`.
fn is_name_in_braces(text: &str, at: usize) -> bool {
    let inside = text.get(at + 1..).and_then(|rest| rest.split_once('}')).map(|(inside, _)| inside);
    text.get(..at).is_some_and(|before| before.ends_with('$'))
        && inside.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}

/// The words of a lone simple command without assignments and redirections.
fn words(pipeline: &Pipeline) -> Option<Words> {
    let [Command::Simple(command)] = pipeline.seq.as_slice() else { return None };
    if pipeline.bang || pipeline.timed.is_some() || command.prefix.is_some() {
        return None;
    }
    let mut words = vec![command.word_or_name.as_ref()?.value.clone()];
    for item in command.suffix.iter().flat_map(|suffix| &suffix.0) {
        match item {
            CommandPrefixOrSuffixItem::Word(word) | CommandPrefixOrSuffixItem::AssignmentWord(_, word) => {
                words.push(word.value.clone());
            }
            _ => return None,
        }
    }
    Some(words)
}

fn is_of_session(words: &Words, state: &State) -> bool {
    words
        .first()
        .is_some_and(|name| (SESSION.contains(&name.as_str()) || name == "unset") && !is_defined(name, state))
}

fn is_defined(name: &str, state: &State) -> bool {
    state.aliases.contains_key(name.as_bytes()) || state.functions.contains_key(name.as_bytes())
}

/// Whether a pipeline is made of programs alone: each in a process of its own, and no word of theirs changes a variable.
fn is_program(pipeline: &Pipeline, dialect: Dialect, state: &State) -> bool {
    let program = |command: &Command| match command {
        Command::Simple(SimpleCommand { word_or_name: Some(name), .. }) => {
            let name = name.value.as_str();
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./+-".contains(&byte))
                && !dialect.has_word(name)
                && !is_defined(name, state)
        }
        _ => false,
    };
    pipeline.timed.is_none() && pipeline.seq.iter().all(program)
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::state;
    use super::*;

    fn reading(line: &str) -> Reading {
        read(line.as_bytes(), Dialect::Bash, &state("/", &[]))
    }

    #[test]
    fn one_program_is_told_from_work_for_a_shell() {
        for line in [
            "ls",
            "ls -l /tmp",
            "/bin/ls '$x' \"$HOME\"",
            "A=1 make -j2",
            "sort < in > out 2>&1",
            "ls | wc -l",
            "./a.sh *.c",
        ] {
            assert_eq!(reading(line), Reading::Program, "{line}");
        }
        for line in [
            "ls; pwd2",
            "x=1",
            "eval ls",
            ". ./env",
            "$EDITOR x",
            "ls &",
            "ls $?",
            "ls ${X:=1}",
            "ls | read x",
            "time ls",
            "cd /tmp | cat",
            "> out",
            "if true; then cd /; fi",
            "cat <<E\nE",
            "l's'",
            "ls\ncd /",
        ] {
            assert_eq!(reading(line), Reading::Shell { is_right: true }, "{line}");
        }
        for line in ["ls '", "ls | | wc", "ls &&", "cd / )", "fi", "echo $(ls", "f() { :; }", "echo $(ls)"] {
            assert_eq!(reading(line), UNSURE, "{line}");
        }
    }

    #[test]
    fn commands_of_the_session_are_taken_apart() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            reading("cd 'a b' && export X=\"$Y\"; pwd || exit 3"),
            Reading::Commands(vec![
                (Joint::Then, words(&["cd", "'a b'"])),
                (Joint::And, words(&["export", "X=\"$Y\""])),
                (Joint::Then, words(&["pwd"])),
                (Joint::Or, words(&["exit", "3"])),
            ])
        );
        for line in ["cd /tmp > x", "A=1 cd /tmp", "! cd /tmp", "cd /tmp; ls", "cd /tmp &", "cd /tmp | cat"] {
            assert_eq!(reading(line), Reading::Shell { is_right: true }, "{line}");
        }
    }

    #[test]
    fn a_line_that_may_end_its_shell_says_so_or_calls_what_does() {
        let mut with = state("/", &[]);
        with.functions.insert(b"die".to_vec(), b"die () { echo \"$@\"; exit 1; }".to_vec());
        with.aliases.insert(b"q".to_vec(), b"exit".to_vec());
        for line in ["exit", "a || exit 3", "die x", "true;q", "if x; then{ exit;}"] {
            assert!(mentions_exit(line.as_bytes(), &with), "{line}");
        }
        for line in ["ls", "exits", "no-exit", "died", "echo quit"] {
            assert!(!mentions_exit(line.as_bytes(), &with), "{line}");
        }
    }

    #[test]
    fn an_alias_or_a_function_is_what_it_was_made() {
        let mut with = state("/", &[]);
        with.aliases.insert(b"ls".to_vec(), b"cd".to_vec());
        with.functions.insert(b"cd".to_vec(), b"cd () { :; }".to_vec());
        assert_eq!(read(b"ls", Dialect::Bash, &with), Reading::Shell { is_right: true });
        assert_eq!(read(b"cd /", Dialect::Bash, &with), Reading::Shell { is_right: true });
    }

    #[test]
    fn a_line_that_nests_never_reaches_the_parser() {
        for line in
            ["(".repeat(4000), "if ".repeat(1300), "{ ".repeat(2000), "$((".repeat(1000), "! ".repeat(2000)]
        {
            assert!(depth(&line) > limits::DEPTH);
            assert_eq!(reading(&line), UNSURE);
        }
        assert_eq!(reading(&"ls ".repeat(2000)), UNSURE);
        // Brackets of any depth are refused where they would take it long.
        assert!(branches(&"(".repeat(limits::BRANCHES + 1)) > limits::BRANCHES);
        // What may come to it does it no harm, and takes no time that anybody would notice.
        let (wide, deep) = (limits::BRANCHES, limits::DEPTH);
        for line in [
            "(".repeat(wide),
            "$((".repeat(wide / 2),
            "case x in y) ".repeat(wide / 3),
            "if ".repeat(deep),
            "{ ".repeat(deep),
            "f() ( ".repeat(wide / 2),
        ] {
            assert_eq!(reading(&line), UNSURE);
        }
        assert_eq!(reading("((until true; do :; done; echo x)\n)"), UNSURE);
    }
}
