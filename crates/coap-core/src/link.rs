//! What the gateway says of its resources: the link format of `/.well-known/core` (RFC 6690).
//!
//! Owns: the document and its filtering by a query. Does not own: which resources there are.

use crate::uri;

/// One resource and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    target: String,
    attributes: Vec<Attribute>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    name: &'static str,
    /// None: the name alone says it.
    value: Option<String>,
}

/// What a link has that names no relation type (RFC 6690, section 2.2).
const RELATION: &str = "hosts";

impl Link {
    /// A resource at this path, which starts with a slash and holds no `>`.
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), attributes: Vec::new() }
    }

    /// What it is: `rt`, one type or several with spaces between (section 3.1).
    #[must_use]
    pub fn resource_type(self, types: impl Into<String>) -> Self {
        self.with("rt", Some(types.into()))
    }

    /// How it is used: `if` (section 3.2).
    #[must_use]
    pub fn interface(self, interfaces: impl Into<String>) -> Self {
        self.with("if", Some(interfaces.into()))
    }

    /// The Content-Format of what it gives: `ct` (RFC 7252, section 7.2.1).
    #[must_use]
    pub fn content_format(self, number: u16) -> Self {
        self.with("ct", Some(number.to_string()))
    }

    /// A line for people: `title`.
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        self.with("title", Some(title.into()))
    }

    /// It is worth observing: `obs` (RFC 7641, section 6).
    #[must_use]
    pub fn observable(self) -> Self {
        self.with("obs", None)
    }

    fn with(mut self, name: &'static str, value: Option<String>) -> Self {
        self.attributes.push(Attribute { name, value });
        self
    }

    fn matches(&self, name: &str, pattern: &str) -> bool {
        match name {
            "href" => return is_like(&self.target, pattern),
            "rel" => return is_like(RELATION, pattern),
            _ => {}
        }
        self.attributes.iter().filter(|attribute| attribute.name == name).any(|attribute| {
            match &attribute.value {
                None => pattern.is_empty(),
                // A title is one text; the others are lists.
                Some(value) if name == "title" => is_like(value, pattern),
                Some(value) => value.split(' ').any(|one| is_like(one, pattern)),
            }
        })
    }

    fn write(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.target);
        out.push('>');
        for Attribute { name, value } in &self.attributes {
            out.push(';');
            out.push_str(name);
            match value {
                None => {}
                Some(number) if *name == "ct" => {
                    out.push('=');
                    out.push_str(number);
                }
                Some(text) => {
                    out.push_str("=\"");
                    for letter in text.chars() {
                        if matches!(letter, '"' | '\\') {
                            out.push('\\');
                        }
                        out.push(letter);
                    }
                    out.push('"');
                }
            }
        }
    }
}

/// The links that match every query (section 4.1), but for those in which clients say who they are: `own` names them. A link
/// without an attribute matches no value of it. Where none match the document is empty, which is an answer as good as any. Its media
/// type is `application/link-format` (40).
pub fn document(links: &[Link], queries: &[String], own: &[&str]) -> String {
    let filters: Vec<_> = queries
        .iter()
        .map(|query| uri::pair(query))
        .filter(|(name, _)| !name.is_empty() && !own.contains(name))
        .collect();
    let mut out = String::new();
    for link in links.iter().filter(|link| filters.iter().all(|(name, value)| link.matches(name, value))) {
        if !out.is_empty() {
            out.push(',');
        }
        link.write(&mut out);
    }
    out
}

/// Whether the text is the pattern; one that ends with `*` is the beginning of what it means.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> [Link; 3] {
        [
            Link::new("/rd").resource_type("core.rd").content_format(40),
            Link::new("/command").resource_type("landfall.command other").interface("x").observable(),
            Link::new("/t").title(r#"a "b" \ c"#),
        ]
    }

    fn ask(queries: &[&str]) -> String {
        let queries: Vec<String> = queries.iter().map(|query| (*query).to_owned()).collect();
        document(&links(), &queries, &["ep", "key", "lt"])
    }

    #[test]
    fn the_document_is_written_as_the_rfc_says() {
        let all = concat!(
            r#"</rd>;rt="core.rd";ct=40,"#,
            r#"</command>;rt="landfall.command other";if="x";obs,"#,
            r#"</t>;title="a \"b\" \\ c""#,
        );
        assert_eq!(ask(&[]), all);
        assert_eq!(ask(&["ep=node", "key=x", "lt=60"]), all, "who asks filters nothing");
    }

    #[test]
    fn a_query_filters_by_an_attribute() {
        let rd = r#"</rd>;rt="core.rd";ct=40"#;
        let command = r#"</command>;rt="landfall.command other";if="x";obs"#;
        for (query, found) in [
            ("rt=core.rd", rd),
            ("rt=core.*", rd),
            ("rt=landfall.command", command),
            ("rt=other", command),
            ("rt=oth*", command),
            ("href=/rd", rd),
            ("href=/r*", rd),
            ("ct=40", rd),
            ("if=x", command),
            ("obs", command),
            ("rt=core", ""),
            ("rt=landfall.command other", ""),
            ("href=rd", ""),
            ("obs=1", ""),
            ("rt=", ""),
        ] {
            assert_eq!(ask(&[query]), found, "{query}");
        }
        // What no link says, no link matches: an attribute that is registered, one of an extension, and none at all.
        for query in ["sz=1", "sz=*", "type=x", "anchor=/rd", "foo=bar", "foo", "rel=alternate"] {
            assert_eq!(ask(&[query]), "", "{query}");
        }
        for query in ["rel=hosts", "rel=h*", "rel=*", "href=*", ""] {
            assert_eq!(ask(&[query, "ep=node"]), ask(&[]), "{query}");
        }
        assert_eq!(ask(&["rt=*", "href=/c*"]), command);
        assert_eq!(ask(&["rt=core.rd", "href=/c*"]), "");
        assert_eq!(ask(&[r#"title=a "b"*"#]), r#"</t>;title="a \"b\" \\ c""#);
    }
}
