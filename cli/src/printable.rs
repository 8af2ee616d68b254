//! Text from elsewhere, made safe for a terminal.

/// Text with every control character escaped, C1 among them (PITFALLS 46).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// An error with its causes, on one line, escaped.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent wrapper repeats its cause's words.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    escape(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_terminals_do_not_pass() {
        let hostile = "a\u{1b}]52;c;x\u{7}b\u{9b}2Jc\r\nd\u{202e}e";
        let safe = escape(hostile);
        assert!(safe.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{safe}");
        assert_eq!(escape("naïve 文字"), "naïve 文字");
    }
}
