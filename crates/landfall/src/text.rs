//! Text of strangers on a terminal.
//!
//! Owns: making every character visible that could move the cursor, change a colour, or turn the direction of what is read.
//! Does not own: log lines (they use `Debug`).

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters that a terminal would act on instead of showing, or that change how their neighbours look.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The text with such characters as `\u{..}`, or `\n`, `\r`, `\t`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A JSON document on one line, with such characters escaped as JSON does. In valid JSON they stand in strings only.
pub(crate) fn visible_json(document: &[u8]) -> String {
    let line = landfall_event::json::one_line(document);
    let text = String::from_utf8_lossy(&line);
    if !text.contains(acts) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut units = [0_u16; 2];
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if acts(c) => c.encode_utf16(&mut units).iter().for_each(|unit| {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }),
            c => out.push(c),
        }
    }
    out
}

/// At most `most` characters, with a sign where something is left out.
pub(crate) fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some((at, _)) => Cow::Owned(format!("{}…", text.get(..at).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        assert_eq!(visible("plain é 温度 \"q\" \\"), "plain é 温度 \"q\" \\");
        assert_eq!(visible("a\u{1b}[31mred\r\nb\tc"), "a\\u{1b}[31mred\\r\\nb\\tc");
        assert_eq!(
            visible("\u{9b}2J\u{202e}abc\u{200b}\u{7f}\0"),
            "\\u{9b}2J\\u{202e}abc\\u{200b}\\u{7f}\\u{0}"
        );
    }

    #[test]
    fn a_json_document_means_the_same_afterwards() {
        let document = "{\"a\" :\n\t\"x\u{202e}\u{9b}\u{e0041}\\n\",\r\n\"b\":[1, 2]}";
        let line = visible_json(document.as_bytes());
        assert!(!line.contains(acts), "{line}");
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(document).unwrap(), serde_json::from_str(&line).unwrap());
        assert_eq!(before, after);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(shortened("éééé", 4), "éééé");
        assert_eq!(shortened("ééééé", 4), "éééé…");
    }
}
