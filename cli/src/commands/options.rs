//! Which option means something on which wire. What means nothing there is refused before anything is sent: an option that is
//! silently ignored is believed to work.

use remora_client::{Plain, Target};

use crate::arguments::{CONNECT_TIMEOUT, Exec, Reach, Sessions, Shell, Staying};
use crate::terminal::Failure;

/// How a target is reached, and what is spoken with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Native,
    Unix,
    Local,
    Raw,
    Length,
    Header,
}

use Wire::{Header, Length, Local, Native, Raw, Unix};

impl Wire {
    fn of(target: &Target) -> Self {
        match target {
            Target::Native { .. } => Native,
            Target::Unix { .. } => Unix,
            Target::Local => Local,
            Target::Plain { wire: Plain::Raw, .. } => Raw,
            Target::Plain { wire: Plain::Length, .. } => Length,
            Target::Plain { wire: Plain::Header, .. } => Header,
        }
    }

    /// As a target of it begins.
    fn name(self) -> &'static str {
        match self {
            Native => "native://",
            Unix => "unix:",
            Local => "local",
            Raw => "raw://",
            Length => "length://",
            Header => "header://",
        }
    }
}

/// What was typed, of whichever verb.
pub(super) struct Given<'a> {
    reach: &'a Reach,
    exec: Option<&'a Exec>,
    shell: Option<&'a Shell>,
}

impl<'a> From<&'a Exec> for Given<'a> {
    fn from(exec: &'a Exec) -> Self {
        Given { reach: &exec.reach, exec: Some(exec), shell: None }
    }
}

impl<'a> From<&'a Shell> for Given<'a> {
    fn from(shell: &'a Shell) -> Self {
        Given { reach: &shell.reach, exec: None, shell: Some(shell) }
    }
}

impl<'a> From<&'a Sessions> for Given<'a> {
    fn from(sessions: &'a Sessions) -> Self {
        Given { reach: &sessions.reach, exec: None, shell: None }
    }
}

/// Sent again over another connection.
const LOST: &[Wire] = &[Native, Unix];
const NOT_LOST: &str = "a connection that is lost there is the end";

impl Given<'_> {
    fn staying(&self, given: impl Fn(&Staying) -> bool) -> bool {
        self.exec.map(|exec| &exec.staying).or(self.shell.map(|shell| &shell.staying)).is_some_and(given)
    }

    fn exec(&self, given: impl Fn(&Exec) -> bool) -> bool {
        self.exec.is_some_and(given)
    }

    fn shell(&self, given: impl Fn(&Shell) -> bool) -> bool {
        self.shell.is_some_and(given)
    }
}

/// An option that isn't for every wire.
struct Rule {
    option: &'static str,
    given: fn(&Given<'_>) -> bool,
    /// Where it means something.
    wires: &'static [Wire],
    /// Why it means nothing elsewhere.
    why: &'static str,
}

/// The wires that carry more than a command line.
const JOBS: &[Wire] = &[Native, Unix, Local];
const LINE_ALONE: &str = "it carries a command line alone";
const NOT_KEPT: &str = "what runs there ends with its connection";
const NO_KEYS: &str = "nobody proves anything on it";

/// Options that aren't here are for every wire.
const RULES: &[Rule] = &[
    Rule {
        option: "--user",
        given: |given| given.reach.user.is_some(),
        wires: JOBS,
        why: "its server runs commands as itself",
    },
    Rule {
        option: "--port",
        given: |given| given.reach.port.is_some(),
        wires: &[Native],
        why: "its address is all in the target",
    },
    Rule {
        option: "--identity",
        given: |given| !given.reach.identity.is_empty(),
        wires: &[Native],
        why: NO_KEYS,
    },
    Rule {
        option: "--known-hosts",
        given: |given| given.reach.known_hosts.is_some(),
        wires: &[Native],
        why: NO_KEYS,
    },
    Rule { option: "--accept-new", given: |given| given.reach.accept_new, wires: &[Native], why: NO_KEYS },
    Rule {
        option: "--tty",
        given: |given| given.exec(|exec| exec.tty > 0),
        wires: JOBS,
        why: "it carries no terminal",
    },
    Rule {
        option: "--detach",
        given: |given| given.exec(|exec| exec.detaching.detach),
        wires: &[Native, Unix],
        why: NOT_KEPT,
    },
    Rule {
        option: "--cwd",
        given: |given| given.exec(|exec| exec.cwd.is_some()),
        wires: JOBS,
        why: "it carries a command line alone; write 'cd DIR && …'",
    },
    Rule {
        option: "--env",
        given: |given| given.exec(|exec| !exec.env.is_empty()),
        wires: JOBS,
        why: "it carries a command line alone; write 'NAME=VALUE …'",
    },
    Rule {
        option: "--session",
        given: |given| {
            given.exec(|exec| exec.session.is_some()) || given.shell(|shell| shell.session.is_some())
        },
        wires: &[Native, Unix, Raw, Length, Header],
        why: "a session there ends with the command, or the shell",
    },
    Rule {
        option: "--session",
        given: |given| {
            given.exec(|exec| exec.session.is_some()) || given.shell(|shell| shell.session.is_some())
        },
        wires: &[Native, Unix, Local],
        why: "a session there ends with its connection",
    },
    Rule {
        option: "--no-pty",
        given: |given| given.shell(|shell| shell.no_pty),
        wires: JOBS,
        why: "it carries no terminal anyway",
    },
    Rule {
        option: "--connect-timeout",
        // Who says what holds anyway isn't misled.
        given: |given| given.reach.connect_timeout != CONNECT_TIMEOUT,
        wires: &[Native, Raw, Length, Header],
        why: "there is no network in between",
    },
    Rule {
        option: "--wait-streams",
        given: |given| given.exec(|exec| exec.wait_streams),
        wires: JOBS,
        why: LINE_ALONE,
    },
    Rule {
        option: "--keep",
        given: |given| given.exec(|exec| exec.keep.is_some()),
        wires: JOBS,
        why: "it has no receipts",
    },
    Rule {
        option: "--receipt",
        given: |given| given.exec(|exec| exec.receipt.is_some()),
        wires: JOBS,
        why: "it has no receipts",
    },
    Rule {
        option: "--reconnect",
        given: |given| given.staying(|staying| staying.reconnect.is_some()),
        wires: LOST,
        why: NOT_LOST,
    },
    Rule {
        option: "--no-reconnect",
        given: |given| given.staying(|staying| staying.no_reconnect),
        wires: LOST,
        why: NOT_LOST,
    },
    Rule {
        option: "--linger",
        given: |given| given.staying(|staying| staying.linger.is_some()),
        wires: LOST,
        why: NOT_LOST,
    },
    Rule {
        option: "--heartbeat",
        given: |given| given.staying(|staying| staying.heartbeat.is_some()),
        wires: LOST,
        why: NOT_LOST,
    },
    Rule {
        option: "--save",
        given: |given| given.exec(|exec| exec.save.is_some()),
        wires: &[Header],
        why: "only header:// replies name a file",
    },
    Rule {
        option: "--silence",
        given: |given| given.exec(|exec| exec.silence),
        wires: &[Raw],
        why: "what comes on it says where it ends",
    },
];

/// Refuses options that mean nothing for this target, or beside each other.
///
/// # Errors
/// A usage error that names option and wire.
pub(super) fn check<'a>(given: impl Into<Given<'a>>, target: &Target) -> Result<(), Failure> {
    let (given, wire) = (given.into(), Wire::of(target));
    if let Some(rule) = RULES.iter().find(|rule| (rule.given)(&given) && !rule.wires.contains(&wire)) {
        let (option, name, why) = (rule.option, wire.name(), rule.why);
        return Err(Failure::usage(format!("{option} makes no sense for {name}: {why}")));
    }
    let Some(exec) = given.exec else { return Ok(()) };
    if exec.save.is_some() && exec.json {
        return Err(Failure::usage("--save and --json both want the output"));
    }
    if exec.save.is_some() && exec.encoding.is_some() {
        return Err(Failure::usage(
            "--encoding is for output that is shown; --save stores bytes as they come",
        ));
    }
    Ok(())
}

/// Refuses a target that has no sessions to list.
///
/// # Errors
/// A usage error that says why.
pub(super) fn check_sessions(sessions: &Sessions, target: &Target) -> Result<(), Failure> {
    let why = match Wire::of(target) {
        Native | Unix => return check(sessions, target),
        Local => "a session there ends with the command, or the shell",
        Raw | Length | Header => "a session there ends with its connection",
    };
    Err(Failure::usage(format!("{} keeps no sessions: {why}", Wire::of(target).name())))
}

/// Refuses a target that keeps no detached commands.
///
/// # Errors
/// A usage error that says why.
pub(super) fn check_jobs(reach: &Reach, target: &Target) -> Result<(), Failure> {
    match Wire::of(target) {
        Native | Unix => check(Given { reach, exec: None, shell: None }, target),
        wire => Err(Failure::usage(format!("{} keeps no detached commands: {NOT_KEPT}", wire.name()))),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::arguments::{Arguments, Command};

    const TARGETS: [&str; 6] =
        ["web1", "unix:/run/r.sock", "local", "raw://h:1", "length://h:1", "header://h:1"];

    /// Each option as it is typed, and the targets that it is for.
    const EXEC: &[(&[&str], &[&str])] = &[
        (&["--argv"], &TARGETS),
        (&["--no-stdin"], &TARGETS),
        (&["--tty"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--user", "ada"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--port", "7"], &["web1"]),
        (&["--identity", "key"], &["web1"]),
        (&["--known-hosts", "file"], &["web1"]),
        (&["--accept-new"], &["web1"]),
        (&["--cwd", "/"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--env", "A=1"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--session", "build"], &["web1", "unix:/run/r.sock"]),
        (&["--timeout", "1s"], &TARGETS),
        (&["--detach"], &["web1", "unix:/run/r.sock"]),
        (&["--name", "n", "--detach"], &["web1", "unix:/run/r.sock"]),
        (&["--lease", "1h", "--detach"], &["web1", "unix:/run/r.sock"]),
        (&["--on-full", "kill", "--detach"], &["web1", "unix:/run/r.sock"]),
        (&["--spool-limit", "1g", "--detach"], &["web1", "unix:/run/r.sock"]),
        (&["--open-stdin", "--detach"], &["web1", "unix:/run/r.sock"]),
        (&["--connect-timeout", "1s"], &["web1", "raw://h:1", "length://h:1", "header://h:1"]),
        (&["--wait-streams"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--reconnect", "1m"], &["web1", "unix:/run/r.sock"]),
        (&["--no-reconnect"], &["web1", "unix:/run/r.sock"]),
        (&["--linger", "1m"], &["web1", "unix:/run/r.sock"]),
        (&["--heartbeat", "0"], &["web1", "unix:/run/r.sock"]),
        (&["--json"], &TARGETS),
        (&["--max-output", "1k", "--json"], &TARGETS),
        (&["--status-file", "file"], &TARGETS),
        (&["--exit-status", "ssh"], &TARGETS),
        (&["--receipt", "file"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--keep", "folder"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--encoding", "gbk"], &TARGETS),
        (&["--save", "."], &["header://h:1"]),
        (&["--overwrite", "--save", "."], &["header://h:1"]),
        (&["--silence"], &["raw://h:1"]),
        (&["--capture", "file"], &TARGETS),
        (&["--verbose"], &TARGETS),
    ];

    /// The same for `remora shell`.
    const SHELL: &[(&[&str], &[&str])] = &[
        (&["--session", "build"], &["web1", "unix:/run/r.sock"]),
        (&["--no-pty"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--exit-on-error"], &TARGETS),
        (&["--reconnect", "1m"], &["web1", "unix:/run/r.sock"]),
        (&["--no-reconnect"], &["web1", "unix:/run/r.sock"]),
        (&["--linger", "1m"], &["web1", "unix:/run/r.sock"]),
        (&["--heartbeat", "0"], &["web1", "unix:/run/r.sock"]),
        (&["--record", "file"], &TARGETS),
        (&["--encoding", "gbk"], &TARGETS),
        (&["--user", "ada"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--port", "7"], &["web1"]),
        (&["--identity", "key"], &["web1"]),
        (&["--known-hosts", "file"], &["web1"]),
        (&["--accept-new"], &["web1"]),
        (&["--connect-timeout", "1s"], &["web1", "raw://h:1", "length://h:1", "header://h:1"]),
        (&["--capture", "file"], &TARGETS),
        (&["--verbose"], &TARGETS),
    ];

    fn judged(options: &[&str], target: &str) -> Result<(), Failure> {
        let words = [&["remora", "exec"], options, &[target, "true"]].concat();
        let Command::Exec(exec) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("not exec")
        };
        check(&*exec, &target.parse().unwrap())
    }

    fn judged_for_shell(options: &[&str], target: &str) -> Result<(), Failure> {
        let words = [&["remora", "shell"], options, &[target]].concat();
        let Command::Shell(shell) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("not shell")
        };
        check(&*shell, &target.parse().unwrap())
    }

    #[test]
    fn each_option_is_for_these_wires_and_refused_by_name_on_the_others() {
        type Judge = fn(&[&str], &str) -> Result<(), Failure>;
        let all = EXEC.iter().map(|row| (row, judged as Judge));
        for ((options, good), judged) in all.chain(SHELL.iter().map(|row| (row, judged_for_shell as Judge))) {
            for target in TARGETS {
                match judged(options, target) {
                    Ok(()) => assert!(good.contains(&target), "{options:?} is ignored for {target}"),
                    Err(failure) => {
                        assert!(!good.contains(&target), "{options:?} for {target}: {}", failure.text);
                        let named = options.iter().any(|option| failure.text.starts_with(option));
                        let wire = Wire::of(&target.parse().unwrap()).name();
                        assert!(named && failure.text.contains(&format!("for {wire}: ")), "{}", failure.text);
                    }
                }
            }
        }
    }

    #[test]
    fn no_option_is_forgotten() {
        let command = Arguments::command();
        for (verb, table) in [("exec", EXEC), ("shell", SHELL)] {
            let verb = command.get_subcommands().find(|command| command.get_name() == verb).unwrap();
            for option in verb.get_arguments().filter_map(|argument| argument.get_long()) {
                let listed = table.iter().any(|(words, _)| words[0] == format!("--{option}"));
                assert!(listed, "--{option}: say in this table which wires it is for");
            }
        }
    }

    #[test]
    fn two_that_want_the_output_are_refused() {
        assert!(judged(&["--save", ".", "--json"], "header://h:1").is_err());
        assert!(judged(&["--save", ".", "--encoding", "gbk"], "header://h:1").is_err());
    }
}
