//! Runs the cases of a file, and says of each whether the two proxies did the same, or differed as expected.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::case::{Case, CaseFile, ExpectedDifference, is_at};
use crate::compare::{Difference, differences};
use crate::known::KnownDifferences;
use crate::outcome::{End, Outcome};
use crate::pair::Pair;
use crate::text::shown;

/// A file, and both proxies once the first of its cases has run.
pub(crate) struct FileRun {
    index: usize,
    pub(crate) file: CaseFile,
    known: Arc<KnownDifferences>,
    pair: Mutex<Option<Result<Pair, String>>>,
}

impl FileRun {
    pub(crate) fn new(index: usize, file: CaseFile, known: Arc<KnownDifferences>) -> Self {
        Self {
            index,
            file,
            known,
            pair: Mutex::new(None),
        }
    }

    /// Runs one case.
    pub(crate) fn case(&self, index: usize) -> Result<(), String> {
        let case = &self.file.cases[index];
        self.check_keys(case)?;
        // A case that panicked leaves the proxies as they are, good for the next.
        let mut pair = self.pair.lock().unwrap_or_else(|error| error.into_inner());
        let started = pair.get_or_insert_with(|| Pair::start(self.index, &self.file.configuration));
        let pair = started.as_mut().map_err(|error| error.clone())?;
        let mut found = Vec::new();
        for exchange in &case.exchanges {
            let is_settled = |found: Vec<Difference>| self.is_settled(case, &found);
            let (envoy, weft) = pair.exchange(exchange, case, is_settled);
            if std::env::var_os("CONFORMANCE_SHOW").is_some() {
                println!("{}: envoy: {envoy:#?}", self.file.title(index));
            }
            if !pair.weft_is_running() {
                return Err(format!("weft has ended:\n{}", pair.weft_output()));
            }
            check_expectation(exchange.expect.as_ref(), &envoy)?;
            found.extend(differences(&envoy, &weft, &case.counters));
        }
        self.judge(case, &relevant(case, found))
    }

    /// Whether it is no use to wait on: there is no difference that could go, and none that could come.
    fn is_settled(&self, case: &Case, found: &[Difference]) -> bool {
        let found = relevant(case, found.to_vec());
        let all_expected = found.iter().all(|one| self.expects(case, &one.place));
        let all_there = missing(case, &found).is_empty();
        all_expected && (all_there || case.exchanges.len() > 1)
    }

    fn expects(&self, case: &Case, place: &str) -> bool {
        let of_file = &mut self
            .file
            .differs
            .iter()
            .flat_map(ExpectedDifference::places);
        case.expects(place) || of_file.any(|expected| is_at(expected, place))
    }

    /// Ends the proxies.
    pub(crate) fn stop(&self) {
        drop(
            self.pair
                .lock()
                .unwrap_or_else(|error| error.into_inner())
                .take(),
        );
    }

    fn check_keys(&self, case: &Case) -> Result<(), String> {
        let expected = case.differs.iter().chain(&self.file.differs);
        let unknown: Vec<&str> = expected
            .map(|difference| difference.because.as_str())
            .filter(|key| !self.known.contains(key))
            .collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "docs/envoy-differences.md has no heading for {}",
                unknown.join(", ")
            )),
        }
    }

    /// Each difference must be expected, and each expected one must be there.
    fn judge(&self, case: &Case, found: &[Difference]) -> Result<(), String> {
        let unexpected: String = found
            .iter()
            .filter(|difference| !self.expects(case, &difference.place))
            .map(|difference| {
                format!(
                    "\n  {}\n    envoy: {}\n    weft:  {}",
                    difference.place, difference.envoy, difference.weft
                )
            })
            .collect();
        let gone = missing(case, found);
        match (unexpected.is_empty(), gone.is_empty()) {
            (true, true) => Ok(()),
            (false, _) => Err(format!("they differ:{unexpected}")),
            (true, false) => Err(format!(
                "expected to differ, and do not any more: {}",
                gone.join(", ")
            )),
        }
    }
}

/// Those that a case looks at.
fn relevant(case: &Case, mut found: Vec<Difference>) -> Vec<Difference> {
    if !case.only.is_empty() {
        found.retain(|difference| case.only.contains(&difference.place));
    }
    found
}

/// Places where a case expects a difference and there is none.
fn missing(case: &Case, found: &[Difference]) -> Vec<String> {
    case.differs
        .iter()
        .flat_map(ExpectedDifference::places)
        .filter(|place| {
            !found
                .iter()
                .any(|difference| is_at(place, &difference.place))
        })
        .cloned()
        .collect()
}

/// What a case says that Envoy does: a status, several, `closed` or `nothing`; so a case shows what it means, and
/// fails where its configuration is not what it meant.
fn check_expectation(expected: Option<&Value>, envoy: &Outcome) -> Result<(), String> {
    let Some(expected) = expected else {
        return Err("an exchange does not say what it expects".into());
    };
    let statuses: Vec<u16> = envoy.responses.iter().map(|each| each.status).collect();
    let actual = match (statuses.as_slice(), envoy.end) {
        ([], _) if !envoy.received.is_empty() => json!(shown(&envoy.received)),
        ([], End::Closed) => json!("closed"),
        ([], End::Open) => json!("nothing"),
        ([one], _) => json!(one),
        (many, _) => json!(many),
    };
    match *expected == actual || *expected == json!("any") {
        true => Ok(()),
        false => Err(format!(
            "Envoy was expected to answer {expected}, and answered {actual} ({:?})",
            envoy.end
        )),
    }
}
