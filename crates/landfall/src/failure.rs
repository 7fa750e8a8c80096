//! How a command ends when it does not succeed.

use std::fmt::Display;

use crate::settings::Problems;

/// Why a command failed: which exit status, and the sentences for standard error. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The command line, the settings or a file that they name is wrong: exit status 64 (`EX_USAGE`).
    #[error("{0}")]
    Usage(String),
    /// Something did not work: exit status 1.
    #[error("{0}")]
    Runtime(String),
    /// The command did what it should and the answer is no; everything has been said: exit status 1.
    #[error("no")]
    No,
}

impl Failure {
    /// A failure at run time.
    pub fn runtime(text: impl Display) -> Self {
        Self::Runtime(text.to_string())
    }

    /// The process's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Runtime(_) | Self::No => 1,
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Usage(problems.to_string())
    }
}
