//! The path and the queries of a request (RFC 7252, sections 5.10.1 and 6.4).
//!
//! Owns: their checks and how a path is written in one piece. Does not own: what a path or a query means.
//!
//! An option's value is the text itself: what a client percent-encodes in a URI it has decoded before it sends, so `%2e`
//! here is three characters. Uri-Host and Uri-Port are of no account: every name of the gateway is the same gateway.

/// The most bytes of a path, its slashes included.
pub const MAX_PATH: usize = 4096;
/// The most bytes of all queries, one more for each.
pub const MAX_QUERIES: usize = 4096;

/// The most bytes of one segment or query (RFC 7252, section 5.10).
const MAX_VALUE: usize = 255;

/// Why a request's path or queries are none: 4.00, but for a length (4.02).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadUri {
    /// A value of more than 255 bytes; an option of a wrong length is one that is not understood, and these are critical.
    Length,
    /// All values together are longer than [`MAX_PATH`] or [`MAX_QUERIES`].
    TooLong,
    /// Not UTF-8.
    NotText,
    /// A path segment `.` or `..`, which no client may send (RFC 7252, section 5.10.1).
    Dots,
}

/// The segments of a path, from the Uri-Path options in their order. None for the root; an empty last one is what a slash
/// at the end makes.
pub fn path<'a>(options: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, BadUri> {
    let segments = texts(options, MAX_PATH)?;
    if segments.iter().any(|segment| matches!(segment.as_str(), "." | "..")) {
        return Err(BadUri::Dots);
    }
    Ok(segments)
}

/// The queries, from the Uri-Query options in their order.
pub fn queries<'a>(options: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, BadUri> {
    texts(options, MAX_QUERIES)
}

/// A query's name and value; a query without `=` has an empty value.
pub fn pair(query: &str) -> (&str, &str) {
    query.split_once('=').unwrap_or((query, ""))
}

/// A path in one piece: `a/b`. A segment may hold a slash itself, so the segments are what to decide by.
pub fn join(segments: &[String]) -> String {
    segments.join("/")
}

fn texts<'a>(options: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Result<Vec<String>, BadUri> {
    let mut texts = Vec::new();
    let mut bytes = 0;
    for value in options {
        bytes += value.len() + 1;
        if value.len() > MAX_VALUE {
            return Err(BadUri::Length);
        }
        if bytes > max {
            return Err(BadUri::TooLong);
        }
        texts.push(str::from_utf8(value).map_err(|_| BadUri::NotText)?.to_owned());
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(segments: &[&[u8]]) -> Result<String, BadUri> {
        path(segments.iter().copied()).map(|path| join(&path))
    }

    #[test]
    fn a_path_is_its_segments() {
        assert_eq!(read(&[]), Ok(String::new()));
        assert_eq!(read(&[b"a", b"b"]), Ok("a/b".into()));
        assert_eq!(read(&[b"a", b"", b"b", b""]), Ok("a//b/".into()));
        assert_eq!(read(&["mesure/élevée".as_bytes()]), Ok("mesure/élevée".into()));
    }

    #[test]
    fn nothing_is_decoded() {
        assert_eq!(read(&[b"%2e%2e", b"%2F", b"a%0d%0a", b"..."]), Ok("%2e%2e/%2F/a%0d%0a/...".into()));
    }

    #[test]
    fn a_segment_that_climbs_is_refused() {
        for dots in [b".".as_slice(), b".."] {
            assert_eq!(read(&[b"a", dots, b"b"]), Err(BadUri::Dots));
        }
    }

    #[test]
    fn a_value_is_text() {
        for bytes in [b"\xff".as_slice(), b"\xc0\xae", b"\xed\xa0\x80", b"\xe2\x82"] {
            assert_eq!(read(&[b"a", bytes]), Err(BadUri::NotText));
            assert_eq!(queries([bytes]), Err(BadUri::NotText));
        }
        assert_eq!(read(&[b"a\0\n"]), Ok("a\0\n".into()), "any text");
    }

    #[test]
    fn lengths_have_bounds() {
        let (long, longer) = ([b'x'; 255], [b'x'; 256]);
        assert_eq!(read(&[&long]).map(|path| path.len()), Ok(255));
        assert_eq!(read(&[&longer]), Err(BadUri::Length));
        assert_eq!(read(&[long.as_slice(); 16]).map(|path| path.len()), Ok(4095));
        assert_eq!(read(&[long.as_slice(); 17]), Err(BadUri::TooLong));
        assert_eq!(read(&[b"".as_slice(); 4097]), Err(BadUri::TooLong), "empty segments count too");
        assert_eq!(queries([long.as_slice(); 17]), Err(BadUri::TooLong));
    }

    #[test]
    fn a_query_is_a_name_and_a_value() {
        let read = queries([b"ep=a=b".as_slice(), b"ack", b"", b"=x"]).unwrap();
        let pairs: Vec<_> = read.iter().map(|query| pair(query)).collect();
        assert_eq!(pairs, [("ep", "a=b"), ("ack", ""), ("", ""), ("", "x")]);
    }
}
