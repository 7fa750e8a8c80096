//! The log: text for people or JSON lines, on standard error.
//!
//! Owns: form and filter. Does not own: what is logged; whoever logs a device's text writes it with `Debug`.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::{Log, LogFilter, LogForm};

/// Replaces the filter of this process's log; false where that came to nothing.
type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Sends everything that this process logs to standard error. Only the first call of a process has an effect.
pub fn init(log: &Log) {
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    // A second call is a test's, in a process that logs already.
    let (subscriber, set_filter) = subscriber(log, std::io::stderr, colour);
    if subscriber.try_init().is_ok() {
        let _ = SET_FILTER.set(set_filter);
    }
}

/// From now on the log holds what this level lets through; false in a process that has no log of its own.
pub fn set_level(level: &LogFilter) -> bool {
    SET_FILTER.get().is_some_and(|set| set(filter(level)))
}

fn filter(level: &LogFilter) -> EnvFilter {
    EnvFilter::builder().parse_lossy(level.directives())
}

fn subscriber<W>(log: &Log, writer: W, colour: bool) -> (Box<dyn Subscriber + Send + Sync>, SetFilter)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&log.level)).with_writer(writer);
    match log.format {
        LogForm::Text => {
            let builder = builder.with_ansi(colour).with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        LogForm::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::settings::{Environment, Settings};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: &str, level: &str, play: impl FnOnce()) -> String {
        let environment = Environment::of([("LANDFALL_LOG__FORMAT", format), ("LANDFALL_LOG__LEVEL", level)]);
        let log = Settings::load(None, &environment).unwrap().log;
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, _set) = subscriber(&log, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, play);
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_is_one_line_whatever_a_device_is_called() {
        let text = logged("json", "info", || {
            let device = "a\r\n{\"level\":\"ERROR\"}\u{1b}[2J\u{202e}";
            tracing::info!(?device, "connected");
        });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "connected");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }

    #[test]
    fn a_text_line_is_one_line_without_colour() {
        let text = logged("text", "info", || tracing::warn!(device = ?"a\n\u{1b}[31m", "refused"));
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.contains("WARN") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        for form in ["text", "json"] {
            let environment = Environment::of([("LANDFALL_LOG__FORMAT", form)]);
            let log = Settings::load(None, &environment).unwrap().log;
            let sink = Sink::default();
            let writer = sink.clone();
            let (subscriber, set) = subscriber(&log, move || writer.clone(), false);
            tracing::subscriber::with_default(subscriber, || {
                tracing::debug!("before");
                assert!(set(filter(&"debug".parse().unwrap())));
                tracing::debug!("after");
            });
            let text = String::from_utf8(sink.0.lock().clone()).unwrap();
            assert!(text.contains("after") && !text.contains("before"), "{text}");
        }
    }

    #[test]
    fn libraries_are_quieter_than_our_own_parts() {
        let play = || {
            tracing::info!(target: "landfall_mqtt::conn", "ours");
            tracing::info!(target: "async_nats", "theirs");
            tracing::debug!(target: "landfall", "detail");
        };
        let text = logged("text", "info", play);
        assert!(text.contains("ours") && !text.contains("theirs") && !text.contains("detail"), "{text}");
        let text = logged("text", "debug,async_nats=info", play);
        assert!(text.contains("theirs") && text.contains("detail"), "{text}");
        assert_eq!(logged("text", "off", play), "");
    }
}
