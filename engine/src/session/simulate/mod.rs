//! Commands that only change a session, carried out on it: no process, and the output and status that the user's shell would give.
//!
//! Each works on a copy of the state. What would fail, and what shells do in ways of their own, isn't carried out here at
//! all: the shell then runs the whole line, and its error text is right by construction.

mod directory;
mod mask;
mod names;
mod world;

use super::dialect::Dialect;
use super::line::{Joint, Words};
use super::state::State;
use super::words::expand;

pub(crate) use world::{Machine, World};

/// What came of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) stdout: Vec<u8>,
    pub(crate) status: u8,
    /// It was `exit`.
    pub(crate) left: bool,
    pub(crate) after: State,
}

/// A line while it is carried out.
struct Scene<'a> {
    dialect: Dialect,
    state: State,
    world: &'a dyn World,
    stdout: Vec<u8>,
    /// The status of the command before, `$?`.
    last: u8,
    /// The status that the line ends with, once it is told to.
    exit: Option<u8>,
}

/// It is the shell's to do.
struct Unsure;

type Done = Result<(), Unsure>;

/// Carries commands out, one after the other; none where any of them is a shell's to do, and nothing has happened then.
pub(crate) fn carry_out(
    commands: &[(Joint, Words)],
    dialect: Dialect,
    state: &State,
    world: &dyn World,
) -> Option<Answer> {
    let last = state.status;
    let mut scene = Scene { dialect, state: state.clone(), world, stdout: Vec::new(), last, exit: None };
    // Whatever is carried out here succeeds: what doesn't ends the attempt.
    let mut skipped = false;
    for (joint, words) in commands {
        skipped = match joint {
            Joint::Then => false,
            Joint::And => skipped,
            Joint::Or => true,
        };
        if !skipped {
            scene.command(words).ok()?;
            scene.last = 0;
        }
        if scene.exit.is_some() {
            break;
        }
    }
    let Scene { state: after, stdout, exit, .. } = scene;
    Some(Answer { stdout, status: exit.unwrap_or(0), left: exit.is_some(), after })
}

impl Scene<'_> {
    fn command(&mut self, words: &Words) -> Done {
        let homes = |user: &str| self.world.home_of(user);
        let words: Option<Vec<Vec<u8>>> =
            words.iter().map(|word| expand(word, &self.state, &homes)).collect();
        let words = words.ok_or(Unsure)?;
        let (name, arguments) = words.split_first().ok_or(Unsure)?;
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        match (name.as_slice(), self.dialect) {
            (b"cd", _) => self.cd(&arguments),
            (b"pwd", _) => self.pwd(&arguments),
            (b"exit", _) => self.exit(&arguments),
            // Fish words its own commands in ways of its own, and nothing else is known under another shell.
            (_, Dialect::Fish | Dialect::Other) => Err(Unsure),
            (b"pushd", Dialect::Bash) => self.pushd(&arguments),
            (b"popd", Dialect::Bash) => self.popd(&arguments),
            (b"dirs", Dialect::Bash) => self.dirs(&arguments),
            (b"export", _) => self.export(&arguments),
            (b"unset", _) => self.unset(&arguments),
            (b"umask", _) => self.umask(&arguments),
            (b"alias", _) => self.alias(&arguments),
            (b"unalias", _) => self.unalias(&arguments),
            _ => Err(Unsure),
        }
    }

    fn exit(&mut self, arguments: &[&[u8]]) -> Done {
        self.exit = Some(match arguments {
            [] => self.last,
            [number] if number.iter().all(u8::is_ascii_digit) => {
                std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).ok_or(Unsure)?
            }
            _ => return Err(Unsure),
        });
        Ok(())
    }
}
