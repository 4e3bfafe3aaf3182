//! What a failed command costs: a message and an exit status.

use std::fmt;
use std::process::ExitCode;

/// Why a command did not do what was asked. The message says what was being done, what went wrong, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    kind: Kind,
    is_inspectable: bool,
}

/// Exit statuses, as docs/reference/cli.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    TimedOut = 124,
    Interrupted = 130,
}

impl Failure {
    /// It went wrong: 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Failed,
            is_inspectable: false,
        }
    }

    /// The command was not typed right: 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Usage,
            is_inspectable: false,
        }
    }

    /// What was named does not exist: 3.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::NotFound,
            is_inspectable: false,
        }
    }

    /// Validation said no, and nothing was changed: 4.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::Refused,
            is_inspectable: false,
        }
    }

    /// It took too long: 124.
    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            kind: Kind::TimedOut,
            is_inspectable: true,
        }
    }

    /// The user ended it.
    pub(crate) fn interrupted() -> Self {
        Self {
            kind: Kind::Interrupted,
            ..Self::new("interrupted")
        }
    }

    /// It went wrong, and what is there is of use to find out why.
    pub(crate) fn inspectable(message: impl Into<String>) -> Self {
        Self {
            is_inspectable: true,
            ..Self::new(message)
        }
    }

    /// Whether what is there should be left for the user to look at.
    pub(crate) fn is_inspectable(&self) -> bool {
        self.is_inspectable
    }

    /// That something does not exist is fine.
    pub(crate) fn ignore_not_found(self) -> Result<(), Self> {
        if self.is_not_found() {
            Ok(())
        } else {
            Err(self)
        }
    }

    /// Says what was being done when it failed.
    pub(crate) fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Whether what was named does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(format!("unexpected answer: {error}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
