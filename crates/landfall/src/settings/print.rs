//! The settings as text: an annotated file, and the table of the documentation.

use super::keys::Row;
use super::{SECTIONS, Settings};

impl Settings {
    /// The settings in force as an annotated TOML file. Secrets are left out; apart from those it reads back as it is.
    pub fn annotated(&self) -> String {
        let rows = self.rows();
        let mut out = String::new();
        for (section, about) in SECTIONS {
            if !section.is_empty() {
                comment(&mut out, about);
                out.push_str(&format!("[{section}]\n"));
            }
            for row in rows.iter().filter(|row| row.section == section) {
                comment(&mut out, row.doc);
                comment(&mut out, &[&format!(" Must be {}.", row.allowed)]);
                comment(&mut out, &[&format!(" Default: {}. Environment: {}.", row.default, row.variable())]);
                out.push_str(&format!("{} = {}\n\n", row.key, row.value));
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    /// The documentation's tables, in Markdown: one per section.
    pub fn reference(&self) -> String {
        let rows = self.rows();
        let mut out = String::new();
        for (section, about) in SECTIONS {
            let title = if section.is_empty() {
                "Outside of every section".to_owned()
            } else {
                format!("`[{section}]`")
            };
            out.push_str(&format!("### {title}\n\n{}\n\n", joined(about)));
            out.push_str(
                "| Key | Default | Must be | Environment | Meaning |\n| --- | --- | --- | --- | --- |\n",
            );
            rows.iter().filter(|row| row.section == section).for_each(|row| out.push_str(&table_row(row)));
            out.push('\n');
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }
}

/// Comment lines; each entry begins with the space that stands behind `///`.
fn comment(out: &mut String, lines: &[&str]) {
    lines.iter().for_each(|line| out.push_str(&format!("#{line}\n")));
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn table_row(row: &Row) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{}` | `{}` | {} | `{}` | {} |\n",
        row.key,
        cell(row.default),
        cell(&row.allowed),
        row.variable(),
        cell(&joined(row.doc)),
    )
}
