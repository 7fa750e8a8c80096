//! Content-Formats: the numbers of the registry (RFC 7252, section 12.3) and the media types that they stand for.
//!
//! Owns: the part of the registry that devices of this kind use. Does not own: what is in a body.

/// `text/plain;charset=utf-8`.
pub const TEXT: u16 = 0;
/// `application/link-format`.
pub const LINK_FORMAT: u16 = 40;
/// `application/octet-stream`.
pub const OCTET_STREAM: u16 = 42;
/// `application/json`.
pub const JSON: u16 = 50;
/// `application/cbor`.
pub const CBOR: u16 = 60;

const FORMATS: [(u16, &str); 29] = [
    (TEXT, "text/plain;charset=utf-8"),
    (21, "image/gif"),
    (22, "image/jpeg"),
    (23, "image/png"),
    (LINK_FORMAT, "application/link-format"),
    (41, "application/xml"),
    (OCTET_STREAM, "application/octet-stream"),
    (47, "application/exi"),
    (JSON, "application/json"),
    (51, "application/json-patch+json"),
    (52, "application/merge-patch+json"),
    (CBOR, "application/cbor"),
    (61, "application/cwt"),
    (62, "application/multipart-core"),
    (63, "application/cbor-seq"),
    (110, "application/senml+json"),
    (111, "application/sensml+json"),
    (112, "application/senml+cbor"),
    (113, "application/sensml+cbor"),
    (114, "application/senml-exi"),
    (115, "application/sensml-exi"),
    (257, "application/concise-problem-details+cbor"),
    (310, "application/senml+xml"),
    (311, "application/sensml+xml"),
    (432, "application/td+json"),
    (11_542, "application/vnd.oma.lwm2m+tlv"),
    (11_543, "application/vnd.oma.lwm2m+json"),
    (11_544, "application/vnd.oma.lwm2m+cbor"),
    (20_000, "text/css"),
];

/// The media type of a Content-Format; `None` for one that is not known here.
pub fn media_type(number: u16) -> Option<&'static str> {
    FORMATS.iter().find(|(have, _)| *have == number).map(|(_, media)| *media)
}

/// The Content-Format of a media type, in any case and with spaces where HTTP allows them. `text/plain` means UTF-8; of other
/// parameters only a charset of UTF-8 may be dropped, because the numbers with other ones say something else.
pub fn number(media_type: &str) -> Option<u16> {
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next()?;
    let utf8 = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("charset")
            && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if !parts.all(utf8) {
        return None;
    }
    let bare = |media: &'static str| media.split(';').next().unwrap_or(media);
    FORMATS.iter().find(|(_, media)| bare(media).eq_ignore_ascii_case(essence)).map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_leads_to_its_media_type_and_back() {
        for (format, media) in FORMATS {
            assert_eq!(media_type(format), Some(media));
            assert_eq!(number(media), Some(format), "{media}");
        }
        assert!(FORMATS.is_sorted_by(|(a, _), (b, _)| a < b), "each number once");
    }

    #[test]
    fn a_media_type_is_read_as_http_writes_it() {
        for (written, format) in [
            ("text/plain", Some(TEXT)),
            ("Text/Plain; Charset=UTF-8", Some(TEXT)),
            ("text/plain;charset=\"utf-8\"", Some(TEXT)),
            ("text/plain;charset=iso-8859-1", None),
            ("application/JSON ; charset=utf-8", Some(JSON)),
            ("application/json;profile=x", None),
            (" application/cbor ", Some(CBOR)),
            ("application/x-own", None),
            ("", None),
            (";", None),
        ] {
            assert_eq!(number(written), format, "{written}");
        }
    }

    #[test]
    fn an_unknown_number_has_no_media_type() {
        assert_eq!(media_type(1), None);
        assert_eq!(media_type(u16::MAX), None);
    }
}
