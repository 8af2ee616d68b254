//! What a session is at a moment, and what a line changes of it.

use std::collections::BTreeMap;

use super::limits;

/// Names and values.
pub(crate) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A session's state. Each line begins with a copy of all of it, and sees no other line's changes half done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Working directory, absolute, as a shell's `pwd` gives it: with the symbolic links it was reached by.
    pub(crate) cwd: Vec<u8>,
    /// The one before; `cd -` goes there.
    pub(crate) previous: Option<Vec<u8>>,
    /// Directories below the working directory on the stack, the top first.
    pub(crate) stack: Vec<Vec<u8>>,
    /// Exported variables but for `PWD` and `OLDPWD`, which are above.
    pub(crate) environment: Map,
    /// File mode creation mask.
    pub(crate) umask: u32,
    /// Aliases, and what they stand for.
    pub(crate) aliases: Map,
    /// Functions, as the shell prints them.
    pub(crate) functions: Map,
    /// Names that are exported and have no value yet; theirs here are empty.
    pub(crate) marked: Map,
    /// The status of the line before, `$?`: of whichever ended last.
    pub(crate) status: u8,
}

/// Variables that every shell keeps by itself.
pub(crate) const OWN: [&[u8]; 4] = [b"PWD", b"OLDPWD", b"SHLVL", b"_"];

impl State {
    /// A variable as a shell would see it.
    pub(crate) fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        match name {
            b"PWD" => Some(&self.cwd),
            b"OLDPWD" => self.previous.as_deref(),
            name => self.environment.get(name).map(Vec::as_slice),
        }
    }

    /// The environment of a command.
    pub(crate) fn environment_of_a_command(&self) -> Map {
        let mut all = self.environment.clone();
        all.insert(b"PWD".to_vec(), self.cwd.clone());
        if let Some(previous) = &self.previous {
            all.insert(b"OLDPWD".to_vec(), previous.clone());
        }
        all
    }
}

/// What a line changed: only that, so that what other lines changed meanwhile stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    cwd: Option<Vec<u8>>,
    previous: Option<Option<Vec<u8>>>,
    stack: Option<Vec<Vec<u8>>>,
    umask: Option<u32>,
    environment: MapChange,
    aliases: MapChange,
    functions: MapChange,
    marked: MapChange,
}

/// New values of names; none where a name is gone.
type MapChange = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A session would become larger than it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooLarge {
    #[error(
        "the variable {name} has {size} bytes, and one that a program can be given has {} at most",
        limits::VARIABLE
    )]
    Variable { name: String, size: usize },
    #[error("{what} would take {size} bytes, and a session holds {limit}")]
    All { what: &'static str, size: usize, limit: usize },
}

impl Change {
    /// From one state to another.
    pub(crate) fn between(before: &State, after: &State) -> Self {
        Change {
            // Apart: who goes to where it is already has changed nothing but where it was before.
            cwd: (before.cwd != after.cwd).then(|| after.cwd.clone()),
            previous: (before.previous != after.previous).then(|| after.previous.clone()),
            stack: (before.stack != after.stack).then(|| after.stack.clone()),
            umask: (before.umask != after.umask).then_some(after.umask),
            environment: difference(&before.environment, &after.environment),
            aliases: difference(&before.aliases, &after.aliases),
            functions: difference(&before.functions, &after.functions),
            marked: difference(&before.marked, &after.marked),
        }
    }

    /// Carries it out on a session. Directory and mask always fit; of the rest it is all or nothing.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub(crate) fn apply(self, to: &mut State) -> Result<(), TooLarge> {
        if let Some(cwd) = self.cwd {
            to.cwd = cwd;
        }
        if let Some(previous) = self.previous {
            to.previous = previous;
        }
        to.umask = self.umask.unwrap_or(to.umask);
        let mut environment = apply_to(&to.environment, self.environment);
        let mut aliases = apply_to(&to.aliases, self.aliases);
        let mut functions = apply_to(&to.functions, self.functions);
        let mut marked = apply_to(&to.marked, self.marked);
        for (what, map, limit) in [
            ("the environment", &environment, limits::ENVIRONMENT),
            ("the aliases", &aliases, limits::DEFINITIONS),
            ("the functions", &functions, limits::DEFINITIONS),
            ("the exported names", &marked, limits::DEFINITIONS),
        ] {
            if let Some(map) = map {
                check(what, map, limit)?;
            }
        }
        if let Some(variables) = &environment {
            // execve(2), MAX_ARG_STRLEN: NAME=VALUE and the NUL behind it.
            let size = |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() + value.len() + 2;
            if let Some((name, value)) = variables.iter().find(|one| size(*one) > limits::VARIABLE) {
                let name_text = String::from_utf8_lossy(name).escape_debug().to_string();
                return Err(TooLarge::Variable { name: name_text, size: size((name, value)) });
            }
        }
        if let Some(stack) = self.stack {
            let size = stack.iter().map(Vec::len).sum();
            if stack.len() > limits::STACK || size > limits::DEFINITIONS {
                let (what, limit) = ("the directory stack", limits::DEFINITIONS);
                return Err(TooLarge::All { what, size, limit });
            }
            to.stack = stack;
        }
        for (map, new) in [
            (&mut to.environment, &mut environment),
            (&mut to.aliases, &mut aliases),
            (&mut to.functions, &mut functions),
            (&mut to.marked, &mut marked),
        ] {
            if let Some(new) = new.take() {
                *map = new;
            }
        }
        Ok(())
    }
}

fn check(what: &'static str, map: &Map, limit: usize) -> Result<(), TooLarge> {
    let size = map.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if size > limit { Err(TooLarge::All { what, size, limit }) } else { Ok(()) }
}

fn difference(before: &Map, after: &Map) -> MapChange {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
    let new = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    gone.chain(new.map(|(name, value)| (name.clone(), Some(value.clone())))).collect()
}

/// The map with a change; none where nothing changes.
fn apply_to(map: &Map, change: MapChange) -> Option<Map> {
    if change.is_empty() {
        return None;
    }
    let mut map = map.clone();
    for (name, value) in change {
        match value {
            Some(value) => drop(map.insert(name, value)),
            None => drop(map.remove(&name)),
        }
    }
    Some(map)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::session) fn state(cwd: &str, variables: &[(&str, &str)]) -> State {
        State {
            cwd: cwd.into(),
            previous: None,
            stack: Vec::new(),
            environment: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            umask: 0o022,
            aliases: Map::new(),
            functions: Map::new(),
            marked: Map::new(),
            status: 0,
        }
    }

    #[test]
    fn only_what_a_line_changed_is_merged() {
        let before = state("/a", &[("KEPT", "1"), ("GONE", "1"), ("BOTH", "1")]);
        let mut mine = before.clone();
        mine.environment.remove(b"GONE".as_slice());
        mine.environment.insert(b"NEW".to_vec(), b"2".to_vec());
        mine.umask = 0o077;
        // Meanwhile another line went elsewhere.
        let mut session = state("/b", &[("KEPT", "3"), ("GONE", "1"), ("OTHER", "4"), ("BOTH", "5")]);
        Change::between(&before, &mine).apply(&mut session).unwrap();
        let mut expected = state("/b", &[("KEPT", "3"), ("OTHER", "4"), ("BOTH", "5"), ("NEW", "2")]);
        expected.umask = 0o077;
        assert_eq!(session, expected);
    }

    #[test]
    fn what_is_too_large_changes_nothing_but_the_place() {
        let before = state("/a", &[]);
        let mut big = before.clone();
        big.cwd = b"/b".to_vec();
        big.environment.insert(b"BIG".to_vec(), vec![b'x'; limits::VARIABLE]);
        let mut session = before.clone();
        let error = Change::between(&before, &big).apply(&mut session).unwrap_err();
        assert!(matches!(&error, TooLarge::Variable { name, .. } if name == "BIG"), "{error}");
        big.environment.clear();
        for number in 0..12 {
            big.environment.insert(format!("N{number}").into(), vec![b'x'; 100_000]);
        }
        let error = Change::between(&before, &big).apply(&mut session).unwrap_err();
        assert!(error.to_string().contains(&limits::ENVIRONMENT.to_string()), "{error}");
        // A line that goes somewhere is there, whatever else is lost.
        assert_eq!(session, State { cwd: b"/b".to_vec(), ..before });
    }
}
