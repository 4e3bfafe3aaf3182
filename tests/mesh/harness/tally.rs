//! What `bookstore load` counted.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What `bookstore load` printed.
#[derive(Debug, Deserialize)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    status: BTreeMap<String, u64>,
    version: BTreeMap<String, u64>,
    /// Answers by the pod that gave them.
    pub(crate) served_by: BTreeMap<String, u64>,
    /// What the client said of requests without any answer.
    #[serde(skip)]
    #[expect(dead_code, reason = "shown by Debug where an assertion fails")]
    complaints: String,
}

impl Tally {
    /// Reads what was printed on standard output and on standard error.
    #[track_caller]
    pub(crate) fn of(printed: &str, complaints: &str) -> Self {
        let tally: Self =
            serde_json::from_str(printed).unwrap_or_else(|error| panic!("{error} in {printed}"));
        let complaints = complaints.to_owned();
        Self {
            complaints,
            ..tally
        }
    }

    /// How many answers had this status; `error` for none at all.
    pub(crate) fn status(&self, status: &str) -> u64 {
        self.status.get(status).copied().unwrap_or_default()
    }

    /// How many answers came from this version of the reviews.
    pub(crate) fn version(&self, version: &str) -> u64 {
        self.version.get(version).copied().unwrap_or_default()
    }

    /// Fails unless every request was answered with 200.
    #[track_caller]
    pub(crate) fn assert_all_ok(&self) {
        assert_eq!(self.status("200"), self.requests, "{self:?}");
    }
}
