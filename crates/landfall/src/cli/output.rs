//! Standard output: whole lines, colour for people who want it.

use std::io::{self, IsTerminal as _, Write};

use crate::Failure;
use crate::settings::Environment;

/// A colour of a word, as an SGR parameter (ECMA-48, 8.3.117).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Magenta = 35,
    Cyan = 36,
    Grey = 90,
}

/// Where the commands print to.
pub(super) struct Output {
    to: Box<dyn Write>,
    colour: bool,
}

impl Output {
    /// Standard output, coloured on a terminal unless `NO_COLOR` is set to anything.
    pub(super) fn standard(environment: &Environment) -> Self {
        let unwanted = environment.get("NO_COLOR").is_some_and(|set| !set.is_empty());
        let dumb = environment.get("TERM") == Some("dumb");
        let colour = io::stdout().is_terminal() && !unwanted && !dumb;
        Self { to: Box::new(io::stdout()), colour }
    }

    /// The word in a colour, where colours are wanted.
    pub(super) fn paint(&self, colour: Colour, word: &str) -> String {
        if self.colour { format!("\u{1b}[{}m{word}\u{1b}[0m", colour as u8) } else { word.to_owned() }
    }

    /// Prints a line, at once.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Prints a text, at once.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush());
        written.map_err(|error| match error.kind() {
            // Whoever read it has read enough.
            io::ErrorKind::BrokenPipe => Failure::No,
            _ => Failure::Runtime(format!("standard output cannot be written: {error}")),
        })
    }
}

/// Says something that is not the command's output.
pub(super) fn remark(text: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// What was printed.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Printed {
        pub(in crate::cli) fn output(&self, colour: bool) -> Output {
            Output { to: Box::new(self.clone()), colour }
        }

        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn colour_is_for_those_who_want_it() {
        let printed = Printed::default();
        assert_eq!(printed.output(true).paint(Colour::Green, "x"), "\u{1b}[32mx\u{1b}[0m");
        assert_eq!(printed.output(false).paint(Colour::Green, "x"), "x");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_reason_to_complain() {
        let mut out = Output { to: Box::new(Broken), colour: false };
        assert_eq!(out.line("x").unwrap_err(), Failure::No);
    }
}
