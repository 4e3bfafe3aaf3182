//! Runs the cases of a file, and says of each whether the two proxies did the same, or differed as expected.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use crate::case::{Case, CaseFile, ExpectedDifference, is_at};
use crate::compare::{Difference, differences};
use crate::expectation;
use crate::known::KnownDifferences;
use crate::pair::Pair;

/// How many cases of a run may run again. Those that meet a busy machine's moods are few; a proxy that is now and then wrong is
/// not excused, and where much is wrong it would only take long.
const MOST_REPEATED: usize = 8;

/// Cases of this run that ran again.
static REPEATED: AtomicUsize = AtomicUsize::new(0);

/// Held for reading by each case, and for writing by one that runs again: nothing else runs beside it.
static ALONE: RwLock<()> = RwLock::new(());

/// A file, and both proxies once the first of its cases has run.
pub(crate) struct FileRun {
    index: usize,
    pub(crate) file: CaseFile,
    known: Arc<KnownDifferences>,
    pair: Mutex<Option<Result<Pair, String>>>,
    /// How many of its cases have run.
    ended: Mutex<usize>,
    has_ended: Condvar,
}

impl FileRun {
    pub(crate) fn new(index: usize, file: CaseFile, known: Arc<KnownDifferences>) -> Self {
        Self {
            index,
            file,
            known,
            pair: Mutex::new(None),
            ended: Mutex::new(0),
            has_ended: Condvar::new(),
        }
    }

    /// Runs the last of these cases, when those before it have run: some build on what others did.
    pub(crate) fn case(&self, up_to_it: &[usize]) -> Result<(), String> {
        let (index, before) = up_to_it.split_last().expect("a case");
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let is_later = |ended: &mut usize| *ended < before.len();
        drop(self.has_ended.wait_while(ended, is_later));
        let result = self.judged(*index, before);
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.has_ended.notify_all();
        result
    }

    /// Runs a case; one that differs once more, alone, with both proxies started anew and led to it by the cases before it. That
    /// it did is printed; after [`MOST_REPEATED`] of them none is run again.
    fn judged(&self, index: usize, before: &[usize]) -> Result<(), String> {
        let beside_others = ALONE.read().unwrap_or_else(PoisonError::into_inner);
        let Err(first) = self.attempt(index) else {
            return Ok(());
        };
        drop(beside_others);
        if REPEATED.fetch_add(1, Ordering::Relaxed) >= MOST_REPEATED {
            return Err(first);
        }
        let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
        self.stop();
        for earlier in before {
            let _ = self.attempt(*earlier);
        }
        self.attempt(index)?;
        let title = self.file.title(index);
        eprintln!("{title}: once, and not when it ran again alone: {first}");
        Ok(())
    }

    fn attempt(&self, index: usize) -> Result<(), String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.compared(index)));
        outcome.unwrap_or_else(|_| Err("it panicked, as printed".into()))
    }

    fn compared(&self, index: usize) -> Result<(), String> {
        let case = &self.file.cases[index];
        self.check_keys(case)?;
        // A case that panicked leaves the proxies as they are, good for the next.
        let mut pair = self.pair.lock().unwrap_or_else(PoisonError::into_inner);
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
            found.extend(differences(&envoy, &weft, case));
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
                .unwrap_or_else(PoisonError::into_inner)
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
