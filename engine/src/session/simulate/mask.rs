//! `umask` (POSIX.1-2024, umask; chmod for its symbolic form).

use super::super::dialect::Dialect;
use super::{Done, Scene, Unsure};

impl Scene<'_> {
    pub(super) fn umask(&mut self, arguments: &[&[u8]]) -> Done {
        let now = self.state.umask;
        match arguments {
            [] => {
                // zsh shows the first digit only where it isn't 0.
                let digits = if self.dialect == Dialect::Zsh && now & 0o700 == 0 { 3 } else { 4 };
                self.stdout.extend_from_slice(format!("{now:0digits$o}\n").as_bytes());
            }
            [b"-S"] => self.stdout.extend_from_slice((symbolic(now) + "\n").as_bytes()),
            [mask] => {
                let mask = std::str::from_utf8(mask).map_err(|_| Unsure)?;
                self.state.umask = if mask.starts_with(|first: char| first.is_ascii_digit()) {
                    octal(mask).ok_or(Unsure)?
                } else {
                    // dash and zsh have letters of their own for some of it.
                    applied(now, mask).ok_or(Unsure)?
                };
            }
            _ => return Err(Unsure),
        }
        Ok(())
    }
}

fn octal(mask: &str) -> Option<u32> {
    let valid = mask.len() <= 4 && mask.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    u32::from_str_radix(mask, 8).ok().filter(|mask| valid && *mask <= 0o777)
}

/// What may be done, not what is masked.
fn symbolic(mask: u32) -> String {
    let letters = |shift: u32| {
        [(4, 'r'), (2, 'w'), (1, 'x')]
            .into_iter()
            .filter(|(bit, _)| (mask >> shift) & bit == 0)
            .map(|(_, letter)| letter)
            .collect::<String>()
    };
    format!("u={},g={},o={}", letters(6), letters(3), letters(0))
}

/// Applies clauses such as `u=rwx,go-w`: what they set may be done.
fn applied(mask: u32, clauses: &str) -> Option<u32> {
    let mut allowed = !mask & 0o777;
    for clause in clauses.split(',') {
        let at = clause.find(['+', '-', '='])?;
        let (who, rest) = clause.split_at(at);
        let mut set = 0;
        for letter in who.chars() {
            set |= match letter {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return None,
            };
        }
        // Without anybody named it is all, in a way that isn't the same everywhere.
        if set == 0 {
            return None;
        }
        let (action, letters) = rest.split_at(1);
        let mut bits = 0;
        for letter in letters.chars() {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                _ => return None,
            };
        }
        match action {
            "+" => allowed |= bits & set,
            "-" => allowed &= !(bits & set),
            _ => allowed = (allowed & !set) | (bits & set),
        }
    }
    Some(!allowed & 0o777)
}
