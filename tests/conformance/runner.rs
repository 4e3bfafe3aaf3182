//! Runs the cases of a file, and says of each whether the two proxies did the same, or differed as expected.

use std::sync::{Arc, Mutex};

use crate::case::{Case, CaseFile, ExpectedDifference, is_at};
use crate::compare::{Difference, differences};
use crate::expectation;
use crate::known::KnownDifferences;
use crate::pair::Pair;

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
            expectation::check(exchange.expect.as_ref(), &envoy)?;
            found.extend(differences(&envoy, &weft, &case.counters));
            if std::env::var_os("CONFORMANCE_RECORD").is_some() {
                let found = relevant(case, found.clone());
                println!(
                    "{}",
                    expectation::recorded(&self.file.title(index), &envoy, &found)
                );
            }
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
            (true, true) => other_than_said(case, found).map_or(Ok(()), Err),
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

/// Where weft differs in another way than a case says.
fn other_than_said(case: &Case, found: &[Difference]) -> Option<String> {
    let said = case
        .differs
        .iter()
        .filter_map(|expected| Some((expected, expected.weft.as_deref()?)));
    for (expected, weft) in said {
        let is_there = |one: &&Difference| expected.places().iter().any(|at| is_at(at, &one.place));
        if let Some(other) = found.iter().filter(is_there).find(|one| one.weft != weft) {
            let Difference {
                place, weft: did, ..
            } = other;
            return Some(format!(
                "{place}: weft was expected to say {weft}, and said {did}"
            ));
        }
    }
    None
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
