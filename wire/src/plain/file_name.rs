//! Names from a peer, made safe to create a file with.

/// Longest name of a file, bytes (`NAME_MAX` of Linux' file systems).
const LONGEST: usize = 255;
/// What Windows takes for a device, with any extension behind it: the directory may be shared with one.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// Reduces what a peer calls a file to a base name that can do no harm; none where nothing is left.
///
/// The last component counts, behind `/` or `\`. Control characters, characters that change the direction of writing, and
/// those that some system gives a meaning are replaced by `_`. Dots, dashes and white space in front, dots and white space
/// at the end are dropped: the result is neither hidden, nor an option, nor `..`. At most 255 bytes.
pub fn safe_file_name(name: &str) -> Option<String> {
    let trimmed = name.trim_end_matches(['/', '\\']);
    let base = trimmed.rsplit(['/', '\\']).next().unwrap_or_default();
    let cleaned: String = base.chars().map(|c| if is_harmful(c) { '_' } else { c }).collect();
    let mut safe = cleaned.trim_start_matches(|c: char| c == '.' || c == '-' || c.is_whitespace());
    if safe.len() > LONGEST {
        let mut end = LONGEST;
        while !safe.is_char_boundary(end) {
            end -= 1;
        }
        safe = safe.get(..end).unwrap_or_default();
    }
    let safe = safe.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if safe.is_empty() || safe.chars().all(|c| c == '_') {
        return None;
    }
    if is_device(safe) {
        let mut marked = format!("_{safe}");
        while marked.len() > LONGEST {
            marked.pop();
        }
        return Some(marked);
    }
    Some(safe.to_owned())
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, ':' | '*' | '?' | '"' | '<' | '>' | '|')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix| {
        stem.strip_prefix(prefix).is_some_and(|rest: &str| {
            let mut rest = rest.chars();
            rest.next().is_some_and(|c| c.is_ascii_digit() || "¹²³".contains(c)) && rest.next().is_none()
        })
    };
    DEVICES.contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reduced_to_what_does_no_harm() {
        for (name, safe) in [
            ("report.txt", Some("report.txt")),
            ("/etc/passwd", Some("passwd")),
            ("../../.ssh/authorized_keys", Some("authorized_keys")),
            ("..\\..\\boot.ini", Some("boot.ini")),
            ("C:\\Users\\x\\a.txt", Some("a.txt")),
            ("C:a.txt", Some("C_a.txt")),
            (".bashrc", Some("bashrc")),
            ("...", None),
            ("..", None),
            (".", None),
            ("a/..", None),
            ("a/../", None),
            ("", None),
            ("/", None),
            ("///", None),
            ("dir/", Some("dir")),
            ("-rf", Some("rf")),
            (".-.-x", Some("x")),
            ("a\0b", Some("a_b")),
            ("a\nb\u{1b}[2J", Some("a_b_[2J")),
            ("\u{202e}gpj.exe", Some("_gpj.exe")),
            ("\n\n", None),
            ("  spaced.txt . ", Some("spaced.txt")),
            ("中文 naïve.txt", Some("中文 naïve.txt")),
            ("con", Some("_con")),
            ("NUL.txt", Some("_NUL.txt")),
            ("com1.log", Some("_com1.log")),
            ("common.log", Some("common.log")),
        ] {
            assert_eq!(safe_file_name(name).as_deref(), safe, "{name:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let safe = safe_file_name(&"é".repeat(300)).unwrap();
        assert_eq!(safe, "é".repeat(127));
        assert_eq!(safe_file_name(&("nul.".to_owned() + &"x".repeat(300))).unwrap().len(), 255);
    }
}
