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

/// The attributes that a query may filter by, and the target; any other query filters nothing, since clients also say in
/// queries who they are.
const FILTERS: [&str; 6] = ["href", "rt", "if", "ct", "title", "obs"];

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
        if name == "href" {
            return is_like(&self.target, pattern);
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

/// The links that match every query that filters (section 4.1); their media type is `application/link-format` (40). Where
/// none match it is empty, which is an answer as good as any.
pub fn document(links: &[Link], queries: &[String]) -> String {
    let filters: Vec<_> =
        queries.iter().map(|query| uri::pair(query)).filter(|(name, _)| FILTERS.contains(name)).collect();
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
        document(&links(), &queries.iter().map(|query| (*query).to_owned()).collect::<Vec<_>>())
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
        assert_eq!(ask(&["rt=*", "href=/c*"]), command);
        assert_eq!(ask(&["rt=core.rd", "href=/c*"]), "");
        assert_eq!(ask(&[r#"title=a "b"*"#]), r#"</t>;title="a \"b\" \\ c""#);
    }
}
