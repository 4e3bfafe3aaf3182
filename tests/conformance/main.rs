//! The proxy against Envoy: the same configuration and the same bytes through both, and whatever differs is a bug
//! or a line in `docs/envoy-differences.md`.
//!
//! Cases are data: `cases/<topic>/<file>.yaml`. All cases of a file share one Envoy and one weft, started when the
//! first of them runs and ended after the last; files run beside one another. `README.md` in this folder describes the format.
//! `cargo test --test conformance FILTER` runs those whose name contains it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod answer;
mod case;
mod client;
mod compare;
mod configuration;
mod expectation;
mod frame;
mod h2;
mod h2_step;
mod hpack;
mod known;
mod message;
mod outcome;
mod pair;
mod process;
mod runner;
mod tcp;
mod text;
mod tls;
mod upstream;
mod upstream_h2;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use case::CaseFile;
use known::KnownDifferences;
use runner::FileRun;

/// Files that run at the same time. More gain nothing: exchanges mostly wait for silence.
const THREADS: usize = 4;
/// Files whose proxies live at the same time: twice as many, so that no thread has to wait for another's case.
const FILES_AT_A_TIME: usize = 2 * THREADS;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = Arc::new(KnownDifferences::read(
        &root.join("docs/envoy-differences.md"),
    ));
    let files: Vec<CaseFile> = case_files(&root.join("tests/conformance/cases"))
        .iter()
        .map(|path| CaseFile::read(path))
        .collect();
    let unused = unused_differences(&known, &files);
    let runs: Vec<_> = files
        .into_iter()
        .enumerate()
        .map(|(index, file)| Arc::new(FileRun::new(index, file, Arc::clone(&known))))
        .collect();
    let mut trials = interleaved(&runs, &arguments);
    trials.push(Trial::test(
        "every_listed_difference_has_a_case",
        move || match unused.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "no case shows these differences of docs/envoy-differences.md: {}",
                unused.join(", ")
            )
            .into()),
        },
    ));
    let conclusion = libtest_mimic::run(&arguments, trials);
    for run in &runs {
        run.stop();
    }
    conclusion.exit_code()
}

/// A few files at a time, those with the most cases first. Of these, first the first case of each, then the second:
/// threads take trials in order, and so each takes another file.
fn interleaved(runs: &[Arc<FileRun>], arguments: &Arguments) -> Vec<Trial> {
    let matches = |title: &str, filter: &str| match arguments.exact {
        true => title == filter,
        false => title.contains(filter),
    };
    let is_wanted = |title: &str| {
        let mut skipped = arguments.skip.iter();
        let is_asked_for = arguments.filter.as_deref();
        is_asked_for.is_none_or(|filter| matches(title, filter))
            && !skipped.any(|filter| matches(title, filter))
    };
    let mut wanted: Vec<(&Arc<FileRun>, Vec<usize>)> = runs
        .iter()
        .map(|run| {
            let cases = 0..run.file.cases.len();
            let cases = cases.filter(|index| is_wanted(&run.file.title(*index)));
            (run, cases.collect())
        })
        .collect();
    wanted.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
    let together = wanted.chunks(FILES_AT_A_TIME);
    together.flat_map(trials_of).collect()
}

fn trials_of(files: &[(&Arc<FileRun>, Vec<usize>)]) -> Vec<Trial> {
    let most = files.iter().map(|(_, cases)| cases.len()).max();
    let mut trials = Vec::new();
    for turn in 0..most.unwrap_or(0) {
        for (run, cases) in files {
            let Some(up_to_it) = cases.get(..=turn) else {
                continue;
            };
            let title = run.file.title(cases[turn]);
            let up_to_it = up_to_it.to_vec();
            let is_last = turn + 1 == cases.len();
            let run = Arc::clone(run);
            trials.push(Trial::test(title, move || {
                let result = run.case(&up_to_it).map_err(Into::into);
                if is_last {
                    run.stop();
                }
                result
            }));
        }
    }
    trials
}

fn unused_differences(known: &KnownDifferences, files: &[CaseFile]) -> Vec<String> {
    let used: Vec<&str> = files
        .iter()
        .flat_map(|file| {
            let own = file.cases.iter().flat_map(|case| &case.differs);
            file.differs.iter().chain(own)
        })
        .map(|difference| difference.because.as_str())
        .collect();
    known
        .keys()
        .filter(|key| !used.contains(key))
        .map(ToOwned::to_owned)
        .collect()
}

fn case_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of cases") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(case_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}
