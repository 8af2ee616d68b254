//! `cd`, `pwd`, and the stack of directories (POSIX.1-2024, cd and pwd; bash(1), DIRSTACK).

use super::super::dialect::Dialect;
use super::super::limits;
use super::{Done, Scene, Unsure};

impl Scene<'_> {
    pub(super) fn cd(&mut self, arguments: &[&[u8]]) -> Done {
        let plain = matches!(self.dialect, Dialect::Bash | Dialect::Dash | Dialect::Zsh);
        let (physical, rest) = match arguments {
            [b"-P", rest @ ..] if plain => (true, rest),
            [b"-L", rest @ ..] if plain => (false, rest),
            rest => (false, rest),
        };
        let (to, shown) = match rest {
            [b"--", one] if plain => self.searched(one)?,
            [] => (self.variable(b"HOME")?, false),
            // Only bash and dash print exactly the directory.
            [b"-"] if !physical && matches!(self.dialect, Dialect::Bash | Dialect::Dash) => {
                (self.state.previous.clone().ok_or(Unsure)?, true)
            }
            [one] if !one.starts_with(b"-") && !one.starts_with(b"+") => self.searched(one)?,
            _ => return Err(Unsure),
        };
        // Without a look at where links lead, a ".." behind one is taken for the way back; with -P it isn't.
        let to = if physical {
            let path =
                if to.starts_with(b"/") { to } else { [&self.state.cwd, b"/".as_slice(), &to].concat() };
            self.world.physical(&path).ok_or(Unsure)?
        } else {
            self.logical(&to)?
        };
        self.go(to)?;
        if shown {
            self.print_directory();
        }
        Ok(())
    }

    /// Where an operand leads by way of `CDPATH`, and whether that is shown.
    fn searched(&self, operand: &[u8]) -> Result<(Vec<u8>, bool), Unsure> {
        let first = operand.split(|byte| *byte == b'/').next().unwrap_or_default();
        let search = self.state.variable(b"CDPATH").filter(|path| !path.is_empty());
        match search {
            Some(search) if !matches!(first, b"" | b"." | b"..") => {
                // What entries that aren't absolute print differs from shell to shell, and zsh has a way of its own.
                if self.dialect == Dialect::Zsh
                    || search.split(|byte| *byte == b':').any(|entry| !entry.starts_with(b"/"))
                {
                    return Err(Unsure);
                }
                for entry in search.split(|byte| *byte == b':') {
                    let path = [entry, b"/", operand].concat();
                    if self.world.is_directory(&path) {
                        return Ok((path, true));
                    }
                }
                // Whether it isn't there or just isn't known is the shell's to find out.
                Err(Unsure)
            }
            _ => Ok((operand.to_vec(), false)),
        }
    }

    /// An absolute path without `.`, `..` and double slashes. Each directory in front of a `..` must be there, but for the
    /// working directory itself: one that vanished can be left.
    fn logical(&self, path: &[u8]) -> Result<Vec<u8>, Unsure> {
        // Two slashes at the beginning may mean something of their own (POSIX.1-2024, XBD 4.16), and some shells keep them.
        if path.is_empty() || path.starts_with(b"//") {
            return Err(Unsure);
        }
        let parts_of =
            |path: &'_ [u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut parts: Vec<Vec<u8>> = Vec::new();
        if !path.starts_with(b"/") {
            parts.extend(parts_of(&self.state.cwd).into_iter().filter(|part| !part.is_empty()));
        }
        let mut known = parts.len();
        for part in parts_of(path) {
            match part.as_slice() {
                b"" | b"." => {}
                b".." => {
                    if parts.len() > known && !self.world.is_directory(&joined(&parts)) {
                        return Err(Unsure);
                    }
                    parts.pop();
                    known = known.min(parts.len());
                }
                _ => parts.push(part),
            }
        }
        Ok(joined(&parts))
    }

    fn go(&mut self, to: Vec<u8>) -> Done {
        if to.len() >= limits::PATH || !self.world.is_directory(&to) {
            return Err(Unsure);
        }
        self.state.previous = Some(std::mem::replace(&mut self.state.cwd, to));
        Ok(())
    }

    pub(super) fn pwd(&mut self, arguments: &[&[u8]]) -> Done {
        match arguments {
            [] => self.print_directory(),
            [b"-L"] if self.dialect != Dialect::Fish => self.print_directory(),
            [b"-P"] if self.dialect != Dialect::Other => {
                let path = self.world.physical(&self.state.cwd).ok_or(Unsure)?;
                self.stdout.extend_from_slice(&path);
                self.stdout.push(b'\n');
            }
            _ => return Err(Unsure),
        }
        Ok(())
    }

    pub(super) fn pushd(&mut self, arguments: &[&[u8]]) -> Done {
        match arguments {
            [] => {
                let top = self.state.stack.first().cloned().ok_or(Unsure)?;
                let here = self.state.cwd.clone();
                self.go(top)?;
                if let Some(top) = self.state.stack.first_mut() {
                    *top = here;
                }
            }
            [one] if !one.starts_with(b"-") && !one.starts_with(b"+") => {
                let (to, shown) = self.searched(one)?;
                // bash prints the directory it found by CDPATH, and the stack behind it.
                if shown || self.state.stack.len() >= limits::STACK {
                    return Err(Unsure);
                }
                let here = self.state.cwd.clone();
                self.go(self.logical(&to)?)?;
                self.state.stack.insert(0, here);
            }
            _ => return Err(Unsure),
        }
        self.print_stack();
        Ok(())
    }

    pub(super) fn popd(&mut self, arguments: &[&[u8]]) -> Done {
        if !arguments.is_empty() || self.state.stack.is_empty() {
            return Err(Unsure);
        }
        let to = self.state.stack.remove(0);
        self.go(to)?;
        self.print_stack();
        Ok(())
    }

    pub(super) fn dirs(&mut self, arguments: &[&[u8]]) -> Done {
        match arguments {
            [] => self.print_stack(),
            [b"-c"] => self.state.stack.clear(),
            _ => return Err(Unsure),
        }
        Ok(())
    }

    fn print_directory(&mut self) {
        self.stdout.extend_from_slice(&self.state.cwd);
        self.stdout.push(b'\n');
    }

    /// The working directory and what lies below it, `~` for the home.
    fn print_stack(&mut self) {
        let home = self.state.variable(b"HOME").unwrap_or_default().to_vec();
        let short = |path: &[u8]| match path.strip_prefix(home.as_slice()) {
            Some(rest) if home.len() > 1 && (rest.is_empty() || rest.starts_with(b"/")) => {
                [b"~", rest].concat()
            }
            _ => path.to_vec(),
        };
        let all: Vec<Vec<u8>> =
            std::iter::once(&self.state.cwd).chain(&self.state.stack).map(|path| short(path)).collect();
        self.stdout.extend_from_slice(&all.join(&b' '));
        self.stdout.push(b'\n');
    }

    fn variable(&self, name: &[u8]) -> Result<Vec<u8>, Unsure> {
        self.state.variable(name).filter(|value| !value.is_empty()).map(<[u8]>::to_vec).ok_or(Unsure)
    }
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut path = vec![b'/'];
    path.extend_from_slice(&parts.join(&b'/'));
    path
}
