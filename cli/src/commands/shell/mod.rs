//! `remora shell`: lines that are edited here and run on a host, in one session.

mod completion;
mod editor;
mod history;
mod interact;
mod jobs;
mod keys;
mod menu;
mod native;
mod plain;
mod prompt;
mod record;
mod running;
mod screen;
mod script;
mod signals;
mod validator;
mod words;

use std::io::{self, IsTerminal};

use remora_client::{Class, Outcome, Target, exit_status};

use self::native::Native;
use self::prompt::Style;
use self::record::Record;
use self::screen::Screen;
use super::exec::Ending;
use super::place::Place;
use super::timeline::Timeline;
use super::{options, tty};
use crate::arguments::Shell;
use crate::printable::escape;
use crate::raw_mode::was_left_raw;
use crate::terminal::{Failure, hint, say};
use crate::{home, host_keys};

/// Runs the shell and tells how the process is to end.
pub(crate) fn run(shell: &Shell) -> Ending {
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(work(shell));
            // The editor's thread may wait for a key that never comes.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::new(Class::Internal, "", format!("no runtime: {error}"))),
    };
    match result {
        Ok((_, true)) => Ending::Interrupted,
        Ok((status, false)) => Ending::Status(status),
        Err(failure) => {
            failure.print();
            Ending::Status(exit_status(&failure.outcome, false))
        }
    }
}

/// Gives the last status, and whether Ctrl-C ended it.
async fn work(shell: &Shell) -> Result<(u8, bool), Failure> {
    let timeline = Timeline::new(shell.reach.verbose);
    if was_left_raw() {
        hint("this terminal was left in raw mode; `reset` puts it right");
    }
    let target: Target = shell
        .target
        .parse()
        .map_err(|error: remora_client::TargetError| Failure::usage(error.to_string()))?;
    options::check(shell, &target)?;
    host_keys::check(shell.reach.known_hosts.as_deref())?;
    let interactive = io::stdin().is_terminal();
    if interactive && !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::usage("what is shown goes to no terminal, and lines are edited on one")
            .with_hint("--record FILE keeps a copy of all that is shown; remora exec runs one command"));
    }
    if interactive && shell.exit_on_error {
        return Err(Failure::usage("--exit-on-error is for lines from a file or pipe")
            .with_hint("remora shell --exit-on-error TARGET < FILE"));
    }
    let style = Style::of_environment();
    let screen = |record| {
        let screen = Screen::new(shell.encoding, record, style);
        if interactive { screen.restored() } else { screen }
    };
    if let Target::Plain { wire, host, port } = &target {
        let screen = screen(recording(shell)?);
        return plain::run(shell, (*wire, host, *port), screen, interactive, style).await;
    }
    let place = Place::of(target, &shell.reach)?;
    let record = recording(shell)?;
    let mut native = Native::open(place, shell, interactive, style, timeline).await?;
    let screen = if interactive && shell.no_pty { screen(record).tinted() } else { screen(record) };
    let result = if interactive {
        interact::interact(&mut native, screen, style).await.map(|status| (status, false))
    } else {
        script::run(&mut native, screen, shell.exit_on_error).await
    };
    match &result {
        // A script that makes no sense is no reason to come back.
        Err(failure) if failure.outcome != Outcome::Failed(Class::Usage) => native.close().await,
        _ => native.leave().await,
    }
    result
}

fn recording(shell: &Shell) -> Result<Option<Record>, Failure> {
    let Some(path) = &shell.record else { return Ok(None) };
    let name = escape(&path.display().to_string());
    match Record::begin(path, tty::size()) {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::usage(format!("{name} exists already, and no recording is written over it")))
        }
        Err(error) => Err(Failure::usage(format!("can't write {name}: {error}"))),
    }
}

/// What was typed for this target before; where that can't be kept, it is forgotten with the shell.
fn history_of(target: &str) -> history::Kept {
    let Some(state) = home::state() else { return history::unkept() };
    let file = history::file(&state, target);
    history::open(&file).unwrap_or_else(|error| {
        say(&format!("no history is kept: {}: {error}", escape(&file.display().to_string())));
        history::unkept()
    })
}

/// The words of a line that is nothing but words; none of any other.
fn words_of(line: &str) -> Vec<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || " \t%+-".contains(c);
    if line.chars().all(plain) { line.split_ascii_whitespace().collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shells_own_commands_are_words_and_nothing_else() {
        assert_eq!(words_of(" fg  %2 "), ["fg", "%2"]);
        assert_eq!(words_of("exit 3"), ["exit", "3"]);
        for line in ["jobs | wc", "fg; ls", "exit $x", "exit 3 # why", "history > x", "'fg'"] {
            assert!(words_of(line).is_empty(), "{line}");
        }
    }
}
