//! `export`, `unset`, `alias`, `unalias`.

use super::super::dialect::Dialect;
use super::super::words::{is_name, is_settable};
use super::{Done, Scene, Unsure};

/// Whether a session may keep a variable by itself.
fn settable(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(is_settable)
}

/// Whether a name can be an alias in every shell.
fn is_alias(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
        && !name.starts_with(b"-")
}

fn split(argument: &[u8]) -> (&[u8], Option<&[u8]>) {
    match argument.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (name, rest) = argument.split_at(at);
            (name, rest.get(1..))
        }
        None => (argument, None),
    }
}

impl Scene<'_> {
    /// Without a value, a variable that is exported stays so, and one that isn't there will be once it has one.
    pub(super) fn export(&mut self, arguments: &[&[u8]]) -> Done {
        if arguments.is_empty() {
            return Err(Unsure);
        }
        for argument in arguments {
            let (name, value) = split(argument);
            if !settable(name) {
                return Err(Unsure);
            }
            match value {
                Some(value) => {
                    self.state.environment.insert(name.to_vec(), value.to_vec());
                    self.state.marked.remove(name);
                }
                None if self.state.environment.contains_key(name) => {}
                // zsh gives it a value at once, in some of its modes.
                None if self.dialect == Dialect::Zsh => return Err(Unsure),
                None => drop(self.state.marked.insert(name.to_vec(), Vec::new())),
            }
        }
        Ok(())
    }

    pub(super) fn unset(&mut self, arguments: &[&[u8]]) -> Done {
        let names = match arguments {
            [b"-v", names @ ..] => names,
            names => names,
        };
        if names.is_empty() {
            return Err(Unsure);
        }
        for name in names {
            // Where there is no such variable, bash removes a function of that name.
            if !is_name(name) || !settable(name) || self.state.functions.contains_key(*name) {
                return Err(Unsure);
            }
            self.state.environment.remove(*name);
            self.state.marked.remove(*name);
        }
        Ok(())
    }

    pub(super) fn alias(&mut self, arguments: &[&[u8]]) -> Done {
        if arguments.is_empty() {
            return Err(Unsure);
        }
        for argument in arguments {
            match split(argument) {
                (name, Some(value)) if is_alias(name) => {
                    self.state.aliases.insert(name.to_vec(), value.to_vec());
                }
                _ => return Err(Unsure),
            }
        }
        Ok(())
    }

    pub(super) fn unalias(&mut self, arguments: &[&[u8]]) -> Done {
        match arguments {
            [] => return Err(Unsure),
            [b"-a"] => self.state.aliases.clear(),
            names => {
                for name in names {
                    self.state.aliases.remove(*name).ok_or(Unsure)?;
                }
            }
        }
        Ok(())
    }
}
