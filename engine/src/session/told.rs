//! Reads the state that a shell told as it ended.

use super::dialect::Dialect;
use super::state::{Map, OWN, State};
use super::unquote::commands;
use super::words::is_name;
use super::wrap::{BEGIN, EARLY, END, OURS};

/// What a shell told.
#[derive(Debug)]
pub(crate) struct Told {
    /// The state after the line.
    pub(crate) after: State,
    /// The shell ended before the line did.
    pub(crate) early: bool,
}

/// Reads what was told, where `before` is the state that the shell began with; none where it isn't whole.
pub(crate) fn read(dialect: Dialect, told: &[u8], before: &State) -> Option<Told> {
    let mut fields = Fields { rest: told };
    let (mut after, early) = place(dialect, &mut fields, before)?;
    match dialect {
        Dialect::Bash | Dialect::Dash => {
            let (values, marked) = exported(fields.next()?)?;
            set_environment(&mut after, values);
            after.marked = marked;
            after.aliases = aliases(fields.next()?)?;
            let (names, text) = (fields.next()?, fields.next()?);
            after.functions = functions(names, text)?;
            if let Some(stack) = stack(fields.next()?) {
                after.stack = stack;
            }
        }
        Dialect::Zsh | Dialect::Fish => {
            set_environment(&mut after, fields.pairs()?);
            let listed = aliases(fields.next()?)?;
            // What every zsh begins with is nobody's doing.
            let own = |name: &[u8]| dialect == Dialect::Zsh && matches!(name, b"run-help" | b"which-command");
            after.aliases = listed.into_iter().filter(|(name, _)| !own(name)).collect();
            after.functions = fields.pairs()?.into_iter().filter(|(name, _)| is_function(name)).collect();
            after.stack = fields.list()?;
        }
        Dialect::Other => return None,
    }
    (fields.next()? == END.as_bytes()).then_some(Told { after, early })
}

/// As [`read`], of what was too long to be kept: the state with its new directory and mask alone.
pub(crate) fn read_place(dialect: Dialect, told: &[u8], before: &State) -> Option<State> {
    place(dialect, &mut Fields { rest: told }, before).map(|(after, _)| after)
}

fn place(dialect: Dialect, fields: &mut Fields<'_>, before: &State) -> Option<(State, bool)> {
    if fields.next()? != BEGIN.as_bytes() {
        return None;
    }
    let cwd = Some(line(fields.next()?).to_vec()).filter(|cwd| cwd.starts_with(b"/"))?;
    let previous = Some(fields.next()?).filter(|path| path.starts_with(b"/")).map(<[u8]>::to_vec);
    let umask = u32::from_str_radix(std::str::from_utf8(line(fields.next()?)).ok()?, 8).ok()?;
    let early = fields.next()? == EARLY.as_bytes();
    // fish doesn't say where it was before.
    let previous = match previous {
        None if dialect == Dialect::Fish && cwd != before.cwd => Some(before.cwd.clone()),
        None if dialect == Dialect::Fish => before.previous.clone(),
        previous => previous,
    };
    Some((State { cwd, previous, umask, ..before.clone() }, early))
}

/// Fields that end with a NUL each.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (field, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..)?;
        Some(field)
    }

    /// Fields up to an empty one.
    fn list(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        loop {
            match self.next()? {
                [] => return Some(all),
                field => all.push(field.to_vec()),
            }
        }
    }

    /// Names and values up to an empty name.
    fn pairs(&mut self) -> Option<Map> {
        let mut all = Map::new();
        loop {
            match self.next()? {
                [] => return Some(all),
                name => drop(all.insert(name.to_vec(), self.next()?.to_vec())),
            }
        }
    }
}

fn line(field: &[u8]) -> &[u8] {
    field.strip_suffix(b"\n").unwrap_or(field)
}

/// Takes over what was exported. Names that a shell can't have as a variable it neither shows nor changes.
fn set_environment(after: &mut State, exported: Map) {
    after.environment.retain(|name, _| !is_name(name));
    let own = |name: &[u8]| OWN.contains(&name);
    after.environment.extend(exported.into_iter().filter(|(name, _)| is_name(name) && !own(name)));
}

/// What `export -p` prints: `export NAME='value'`, `declare -x NAME="value"`, and names that have no value yet.
fn exported(text: &[u8]) -> Option<(Map, Map)> {
    let (mut all, mut marked) = (Map::new(), Map::new());
    for words in commands(text)? {
        let mut words = words.into_iter();
        let verb = words.next()?;
        if !matches!(verb.as_slice(), b"export" | b"declare" | b"typeset") {
            return None;
        }
        let word = words.find(|word| !word.starts_with(b"-"))?;
        if let Some(at) = word.iter().position(|byte| *byte == b'=') {
            let (name, value) = word.split_at(at);
            all.insert(name.to_vec(), value.get(1..)?.to_vec());
        } else if is_name(&word) && !OWN.contains(&word.as_slice()) {
            marked.insert(word, Vec::new());
        }
    }
    Some((all, marked))
}

/// What `alias` prints: `alias NAME='value'` or `NAME='value'`.
fn aliases(text: &[u8]) -> Option<Map> {
    let mut all = Map::new();
    for words in commands(text)? {
        let mut words: Vec<Vec<u8>> = words;
        if words.len() > 1 && words.first().is_some_and(|word| word == b"alias") {
            words.remove(0);
        }
        // zsh: of a suffix, or global; kept by no session.
        let [word] = words.as_slice() else { continue };
        let at = word.iter().position(|byte| *byte == b'=')?;
        let (name, value) = word.split_at(at);
        let name_is_plain =
            name.iter().all(|byte| byte.is_ascii_graphic() && !b"'\"\\$`;&|<>()".contains(byte));
        if name_is_plain {
            all.insert(name.to_vec(), value.get(1..)?.to_vec());
        }
    }
    Some(all)
}

/// bash's functions: their names from `declare -F`, in the order in which `declare -f` prints them.
fn functions(names: &[u8], text: &[u8]) -> Option<Map> {
    let mut all = Map::new();
    let names: Vec<&[u8]> = names
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"declare -f"))
        .filter_map(|rest| rest.iter().position(|byte| *byte == b' ').and_then(|at| rest.get(at + 1..)))
        .collect();
    let mut rest = text;
    for (index, name) in names.iter().enumerate() {
        let end = match names.get(index + 1) {
            Some(next) => {
                let head = [b"\n".as_slice(), next, b" () \n"].concat();
                rest.windows(head.len()).position(|window| window == head)? + 1
            }
            None => rest.len(),
        };
        let (source, after) = rest.split_at_checked(end)?;
        if is_function(name) {
            all.insert(name.to_vec(), source.to_vec());
        }
        rest = after;
    }
    Some(all)
}

/// Names of functions that can be written back without a thought.
fn is_function(name: &[u8]) -> bool {
    !name.is_empty()
        && !name.starts_with(OURS.as_bytes())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:+@".contains(byte))
}

/// bash's `declare -a DIRSTACK=([0]="/here" [1]="/below")` without the working directory itself.
fn stack(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let inside = text.strip_prefix(b"declare -a DIRSTACK=(")?;
    let inside = line(inside).strip_suffix(b")")?;
    let words = commands(inside)?.pop().unwrap_or_default();
    let values = words.into_iter().map(|word| {
        let at = word.iter().position(|byte| *byte == b'=')?;
        word.get(at + 1..).map(<[u8]>::to_vec)
    });
    values.skip(1).collect()
}
