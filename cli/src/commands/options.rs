//! Which option means something on which wire. What means nothing there is refused before anything is sent: an option that is
//! silently ignored is believed to work.

use remora_client::{Plain, Target};

use crate::arguments::{CONNECT_TIMEOUT, Exec};
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

/// An option that isn't for every wire.
struct Rule {
    option: &'static str,
    given: fn(&Exec) -> bool,
    /// Where it means something.
    wires: &'static [Wire],
    /// Why it means nothing elsewhere.
    why: &'static str,
}

/// The wires that carry more than a command line.
const JOBS: &[Wire] = &[Native, Unix, Local];
const LINE_ALONE: &str = "it carries a command line alone";
const NO_KEYS: &str = "nobody proves anything on it";

/// Options that aren't here are for every wire.
const RULES: &[Rule] = &[
    Rule {
        option: "--user",
        given: |exec| exec.reach.user.is_some(),
        wires: JOBS,
        why: "its server runs commands as itself",
    },
    Rule {
        option: "--port",
        given: |exec| exec.reach.port.is_some(),
        wires: &[Native],
        why: "its address is all in the target",
    },
    Rule {
        option: "--identity",
        given: |exec| !exec.reach.identity.is_empty(),
        wires: &[Native],
        why: NO_KEYS,
    },
    Rule {
        option: "--known-hosts",
        given: |exec| exec.reach.known_hosts.is_some(),
        wires: &[Native],
        why: NO_KEYS,
    },
    Rule { option: "--accept-new", given: |exec| exec.reach.accept_new, wires: &[Native], why: NO_KEYS },
    Rule { option: "--tty", given: |exec| exec.tty > 0, wires: JOBS, why: "it carries no terminal" },
    Rule {
        option: "--cwd",
        given: |exec| exec.cwd.is_some(),
        wires: JOBS,
        why: "it carries a command line alone; write 'cd DIR && …'",
    },
    Rule {
        option: "--env",
        given: |exec| !exec.env.is_empty(),
        wires: JOBS,
        why: "it carries a command line alone; write 'NAME=VALUE …'",
    },
    Rule {
        option: "--connect-timeout",
        // Who says what holds anyway isn't misled.
        given: |exec| exec.reach.connect_timeout != CONNECT_TIMEOUT,
        wires: &[Native, Raw, Length, Header],
        why: "there is no network in between",
    },
    Rule { option: "--wait-streams", given: |exec| exec.wait_streams, wires: JOBS, why: LINE_ALONE },
    Rule {
        option: "--save",
        given: |exec| exec.save.is_some(),
        wires: &[Header],
        why: "only header:// replies name a file",
    },
    Rule {
        option: "--silence",
        given: |exec| exec.silence,
        wires: &[Raw],
        why: "what comes on it says where it ends",
    },
];

/// Refuses options that mean nothing for this target, or beside each other.
///
/// # Errors
/// A usage error that names option and wire.
pub(super) fn check(exec: &Exec, target: &Target) -> Result<(), Failure> {
    let wire = Wire::of(target);
    if let Some(rule) = RULES.iter().find(|rule| (rule.given)(exec) && !rule.wires.contains(&wire)) {
        let (option, name, why) = (rule.option, wire.name(), rule.why);
        return Err(Failure::usage(format!("{option} makes no sense for {name}: {why}")));
    }
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

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::arguments::{Arguments, Command};

    const TARGETS: [&str; 6] =
        ["web1", "unix:/run/r.sock", "local", "raw://h:1", "length://h:1", "header://h:1"];

    /// Each option as it is typed, and the targets that it is for.
    const TABLE: &[(&[&str], &[&str])] = &[
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
        (&["--timeout", "1s"], &TARGETS),
        (&["--connect-timeout", "1s"], &["web1", "raw://h:1", "length://h:1", "header://h:1"]),
        (&["--wait-streams"], &["web1", "unix:/run/r.sock", "local"]),
        (&["--json"], &TARGETS),
        (&["--max-output", "1k", "--json"], &TARGETS),
        (&["--status-file", "file"], &TARGETS),
        (&["--exit-status", "ssh"], &TARGETS),
        (&["--encoding", "gbk"], &TARGETS),
        (&["--save", "."], &["header://h:1"]),
        (&["--overwrite", "--save", "."], &["header://h:1"]),
        (&["--silence"], &["raw://h:1"]),
        (&["--capture", "file"], &TARGETS),
        (&["--verbose"], &TARGETS),
    ];

    fn judged(options: &[&str], target: &str) -> Result<(), Failure> {
        let words = [&["remora", "exec"], options, &[target, "true"]].concat();
        let Command::Exec(exec) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("not exec")
        };
        check(&exec, &target.parse().unwrap())
    }

    #[test]
    fn each_option_is_for_these_wires_and_refused_by_name_on_the_others() {
        for (options, good) in TABLE {
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
        let exec = command.get_subcommands().find(|command| command.get_name() == "exec").unwrap();
        for option in exec.get_arguments().filter_map(|argument| argument.get_long()) {
            let listed = TABLE.iter().any(|(words, _)| words[0] == format!("--{option}"));
            assert!(listed, "--{option}: say in this table which wires it is for");
        }
    }

    #[test]
    fn two_that_want_the_output_are_refused() {
        assert!(judged(&["--save", ".", "--json"], "header://h:1").is_err());
        assert!(judged(&["--save", ".", "--encoding", "gbk"], "header://h:1").is_err());
    }
}
