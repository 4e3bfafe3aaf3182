//! The proxy's own log, on standard error, and its level, which can be changed while it runs.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// The variable that says what is logged at first.
const VARIABLE: &str = "WEFT_LOG";
/// Where it says nothing.
const DEFAULT: &str = "info";

/// The level of the log.
#[derive(Clone)]
pub struct LogControl {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
    directives: Arc<Mutex<String>>,
}

/// Why a level is not set.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is none.
    #[error("{0:?} is no level or directive, such as `debug` or `weft_proxy::xds=trace`")]
    Directive(String),
    /// The log is not the proxy's.
    #[error("the log belongs to the program that this proxy is a part of")]
    NotOurs,
}

impl LogControl {
    /// Begins to log. Where the program logs already, it goes on to, and levels cannot be changed here.
    pub fn install() -> Self {
        let directives = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
        let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new(DEFAULT));
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        let installed = tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init();
        Self {
            handle: installed.is_ok().then_some(handle),
            directives: Arc::new(Mutex::new(directives)),
        }
    }

    /// For a proxy inside a program that logs by itself.
    pub fn none() -> Self {
        Self {
            handle: None,
            directives: Arc::new(Mutex::new(DEFAULT.to_owned())),
        }
    }

    /// What is logged now.
    pub fn directives(&self) -> String {
        self.directives.lock().clone()
    }

    /// Logs this from now on.
    pub fn set(&self, directives: &str) -> Result<(), LogError> {
        let filter = EnvFilter::try_new(directives)
            .map_err(|_| LogError::Directive(directives.to_owned()))?;
        let handle = self.handle.as_ref().ok_or(LogError::NotOurs)?;
        handle.reload(filter).map_err(|_| LogError::NotOurs)?;
        directives.clone_into(&mut self.directives.lock());
        Ok(())
    }
}
