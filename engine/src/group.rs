//! Whether a process group still has a living member, its leader being a zombie that is not reaped.
//!
//! kill(2) with signal 0 can't tell: it counts zombies. So `/proc` is read, which takes a few microseconds a process; it is
//! done off the runtime's thread, and only for jobs that are ended by force.

use std::fs;

/// Whether a process of this group runs. Where `/proc` can't be read: yes, so that the grace is kept.
pub fn has_living_member(group: i32) -> bool {
    has_living_member_in(group, None)
}

/// As [`has_living_member`], and only members of this session count.
pub(crate) fn has_living_member_in(group: i32, session: Option<i32>) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let is_process = name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        is_process
            && fs::read(entry.path().join("stat")).is_ok_and(|stat| is_living_member(&stat, group, session))
    })
}

/// Reads one `/proc/PID/stat` (proc_pid_stat(5)). The command's name is in parentheses and may hold anything.
fn is_living_member(stat: &[u8], group: i32, session: Option<i32>) -> bool {
    let Some(name_end) = stat.iter().rposition(|byte| *byte == b')') else { return false };
    let rest = String::from_utf8_lossy(stat.get(name_end + 1..).unwrap_or_default());
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    let member = fields.nth(1).and_then(|field| field.parse().ok()) == Some(group);
    let its_session = fields.next().and_then(|field| field.parse().ok());
    member && (session.is_none() || session == its_session) && !matches!(state, "Z" | "X" | "x")
}

#[cfg(test)]
mod tests {
    use super::is_living_member;

    #[test]
    fn odd_names_and_zombies_are_told_apart() {
        assert!(is_living_member(b"12 (a) S 1 77) R 5 77 77 0", 77, None));
        assert!(!is_living_member(b"12 (a) S 1 77) R 5 78 77 0", 77, None));
        assert!(!is_living_member(b"12 (sh) Z 5 77 77 0", 77, None));
        assert!(!is_living_member(b"garbage", 77, None));
        assert!(is_living_member(b"12 (sh) S 1 77 5 0", 77, Some(5)));
        assert!(!is_living_member(b"12 (sh) S 1 77 6 0", 77, Some(5)));
    }
}
