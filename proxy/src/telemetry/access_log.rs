//! The access log: a line about each request and connection that a configuration asks for.
//!
//! Formats are parsed and places opened once for each configuration value; the data path builds the line and
//! hands it to the place's thread.

pub mod filter;
pub mod format;
pub mod operator;
pub mod writer;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tracing::warn;

use super::registry::Registry;
use super::value::Counter;
use crate::config::access_log::{AccessLogConfig, AccessLogSink, Moment};
use filter::passes;
use format::Format;
use operator::Entry;
use writer::Writer;

/// More configurations than this are not remembered at once; those out of use are forgotten first.
const MAX_REMEMBERED: usize = 256;

/// Room for a line that is kept, in bytes.
const MAX_KEPT: usize = 4096;

thread_local! {
    /// Where lines are made.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// All access logs of the process.
#[derive(Debug)]
pub struct AccessLogs {
    ready: RwLock<Vec<Ready>>,
    writers: Mutex<HashMap<AccessLogSink, Arc<Writer>>>,
    dropped: Arc<Counter>,
    failed: Arc<Counter>,
}

/// A configuration, ready for lines; without a log where it could not be opened.
#[derive(Debug, Clone)]
struct Ready {
    config: Arc<AccessLogConfig>,
    log: Option<(Arc<Format>, Arc<Writer>)>,
}

impl AccessLogs {
    /// No logs yet; counts lines that are lost.
    pub fn register(registry: &Registry) -> Self {
        Self {
            ready: RwLock::default(),
            writers: Mutex::default(),
            dropped: registry.counter(
                "weft_access_log_dropped_total",
                "Lines that were dropped because their file or pipe did not keep up.",
            ),
            failed: registry.counter(
                "weft_access_log_failed_total",
                "Access logs that could not be opened.",
            ),
        }
    }

    /// Writes about an exchange wherever its configuration wants it.
    pub fn write(&self, configs: &[Arc<AccessLogConfig>], entry: Entry<'_>) {
        let moment = match entry {
            Entry::Request(_) => Moment::RequestEnd,
            Entry::Connection(_) => Moment::ConnectionEnd,
        };
        for config in configs {
            let is_wanted = config
                .filter
                .as_ref()
                .is_none_or(|filter| passes(filter, entry, moment));
            if !is_wanted {
                continue;
            }
            if let Some((format, writer)) = self.log(config) {
                LINE.with_borrow_mut(|line| {
                    line.clear();
                    format.write(entry.into(), line);
                    writer.write(line);
                    line.shrink_to(MAX_KEPT);
                });
            }
        }
    }

    /// Waits until all lines are written, at most so long for each place.
    pub fn flush(&self, limit: Duration) {
        let writers: Vec<_> = self.writers.lock().values().cloned().collect();
        for writer in writers {
            writer.flush(limit);
        }
    }

    /// Files are opened anew: somebody has moved them away. Tells whether all will be.
    pub fn reopen(&self) -> bool {
        let writers = self.writers.lock();
        let refused = writers.values().filter(|writer| !writer.reopen());
        refused.count() == 0
    }

    fn log(&self, config: &Arc<AccessLogConfig>) -> Option<(Arc<Format>, Arc<Writer>)> {
        let find = |ready: &[Ready]| {
            ready
                .iter()
                .find(|ready| Arc::ptr_eq(&ready.config, config))
                .map(|ready| ready.log.clone())
        };
        if let Some(log) = find(&self.ready.read()) {
            return log;
        }
        let mut ready = self.ready.write();
        if let Some(log) = find(&ready) {
            return log;
        }
        if ready.len() >= MAX_REMEMBERED {
            ready.retain(|ready| Arc::strong_count(&ready.config) > 1);
        }
        let log = self.open(config);
        ready.push(Ready {
            config: Arc::clone(config),
            log: log.clone(),
        });
        log
    }

    fn open(&self, config: &AccessLogConfig) -> Option<(Arc<Format>, Arc<Writer>)> {
        let format = match Format::new(&config.format) {
            Ok(format) => Arc::new(format.with_missing(config.missing)),
            Err(error) => {
                warn!(%error, "access log not written");
                self.failed.increment();
                return None;
            }
        };
        match self.writer(&config.sink) {
            Ok(writer) => Some((format, writer)),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "access log not written"
                );
                self.failed.increment();
                None
            }
        }
    }

    /// Configurations that name the same place share its thread.
    fn writer(&self, sink: &AccessLogSink) -> Result<Arc<Writer>, writer::OpenError> {
        let mut writers = self.writers.lock();
        if let Some(writer) = writers.get(sink) {
            return Ok(Arc::clone(writer));
        }
        let writer = Arc::new(Writer::open(sink, Arc::clone(&self.dropped))?);
        writers.insert(sink.clone(), Arc::clone(&writer));
        Ok(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::request;
    use super::super::value::Shards;
    use super::format::Missing;
    use super::*;
    use crate::config::access_log::{AccessLogFilter, AccessLogFormat, Comparison};

    #[test]
    fn two_configurations_of_one_file_write_into_it_in_turn() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("access.log");
        let logs = AccessLogs::register(&Registry::new(Shards::for_threads(1), 10));
        let config = |text: &str, filter| {
            Arc::new(AccessLogConfig {
                sink: AccessLogSink::File(path.clone()),
                format: AccessLogFormat::Text(text.into()),
                missing: Missing::Shown,
                filter,
            })
        };
        let failed_only = AccessLogFilter::Status(Comparison::AtLeast, 500);
        let configs = [
            config("all %RESPONSE_CODE%\n", None),
            config("failed\n", Some(failed_only)),
        ];

        logs.write(&configs, Entry::Request(&request()));
        logs.flush(Duration::from_secs(10));

        assert_eq!(std::fs::read_to_string(path).expect("read"), "all 200\n");
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_counted_once_and_harms_nobody() {
        let logs = AccessLogs::register(&Registry::new(Shards::for_threads(1), 10));
        let config = Arc::new(AccessLogConfig {
            sink: AccessLogSink::File("/nonexistent/access.log".into()),
            format: AccessLogFormat::Default,
            missing: Missing::Shown,
            filter: None,
        });

        for _ in 0..3 {
            logs.write(std::slice::from_ref(&config), Entry::Request(&request()));
        }

        assert_eq!(logs.failed.value(), 1);
    }
}
