//! The metrics as text, in the format that is asked for.
//!
//! Owns: choosing a format by `Accept`, and the way from OpenMetrics to Prometheus' own text format. Does not own: the metrics, and
//! writing OpenMetrics (`prometheus-client`).

use std::fmt::Write as _;

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format, 0.0.4: what everything reads that reads metrics.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What this `Accept` asks for: OpenMetrics only if it is named, and not less wanted than text.
    pub(super) fn wanted(accept: &str) -> Self {
        let quality = |kind: &str| {
            let range = accept.split(',').find(|range| {
                range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(kind))
            })?;
            let q = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
            Some(q.map_or(1.0, |q| q.trim().parse::<f32>().unwrap_or(0.0)))
        };
        let open = quality("application/openmetrics-text").unwrap_or(0.0);
        let text = quality("text/plain").unwrap_or(0.0);
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The same metrics in Prometheus' text format. There a counter's family has the name of its samples, and what OpenMetrics calls an
/// info is a gauge; there are no units and no end.
pub(super) fn as_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    // The family's help comes before its type, on which its name depends.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some((name, text)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = Some((name, text));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (ending, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                // Writing to a string succeeds.
                let _ = writeln!(out, "# HELP {name}{ending} {text}");
            }
            let _ = writeln!(out, "# TYPE {name}{ending} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let scraper = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                       text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, */*", Format::Text),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Text),
            (scraper, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; version=1.0.0; q=0.3, text/plain; q=0.9", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=much", Format::Text),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept}");
        }
    }

    #[test]
    fn families_are_named_as_the_text_format_names_them() {
        let open = "# HELP a Made.\n# TYPE a counter\na_total{x=\"# TYPE\"} 1\n# HELP b Built.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP c_bytes Size.\n# TYPE c_bytes gauge\n# UNIT c_bytes bytes\nc_bytes 2\n# HELP d What.\n# TYPE d unknown\nd 3\n# EOF\n";
        assert_eq!(
            as_text(open),
            "# HELP a_total Made.\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n# HELP b_info Built.\n# TYPE b_info gauge\n\
             b_info{v=\"1\"} 1\n# HELP c_bytes Size.\n# TYPE c_bytes gauge\nc_bytes 2\n# HELP d What.\n# TYPE d untyped\nd 3\n"
        );
    }
}
