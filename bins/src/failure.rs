//! How a program ends when it does not end as asked.

use inp2p_driver::setup::StartError;

/// Why the program ends. The text is one line: what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Wrong usage or configuration.
    #[error("{0}")]
    Usage(String),
    /// It failed while running.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// Wrong usage or configuration.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// It failed while running.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// The exit code: 2 for wrong usage or configuration, 1 for the rest.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(text) => Self::Usage(text),
            StartError::Failed(text) => Self::Failed(text),
        }
    }
}
