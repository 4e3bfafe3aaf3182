//! Whether the tests that the reference names exist: each as a function, a file, or a case of conformance.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::root;

/// Where tests are.
const FOLDERS: [&str; 2] = ["proxy", "tests"];

/// All that a test can be called.
#[derive(Default)]
struct Known {
    /// Functions, tests that a program has by name, and cases.
    names: BTreeSet<String>,
    files: Vec<String>,
}

impl Known {
    fn everywhere() -> Self {
        let mut known = Self::default();
        for folder in FOLDERS {
            known.add(&root().join(folder));
        }
        known
    }

    fn add(&mut self, folder: &Path) {
        let entries = fs::read_dir(folder).expect("a folder");
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            let text = || fs::read_to_string(&path).expect("readable");
            let extension = path.extension().and_then(|extension| extension.to_str());
            match extension {
                _ if path.is_dir() => self.add(&path),
                Some("rs") => self.names.extend(names_of_code(&text())),
                Some("yaml") => self.names.extend(names_of_cases(&text())),
                _ => {}
            }
            let relative = path.strip_prefix(root()).expect("below the root");
            self.files.push(relative.display().to_string());
        }
    }

    /// Files are called by the end of their path, with or without what they end in; `*` stands for a part of a name.
    fn has_file(&self, name: &str) -> bool {
        let name = name.trim_end_matches('/');
        let (start, end) = name.split_once('*').unwrap_or((name, ""));
        let is_named = |file: &str| {
            let from = file.rfind(start).map(|at| (&file[..at], &file[at..]));
            from.is_some_and(|(folder, rest)| {
                let is_all = name.contains('*') || rest == start;
                is_all && rest.ends_with(end) && (folder.is_empty() || folder.ends_with('/'))
            })
        };
        self.files.iter().any(|file| {
            let stem = file.trim_end_matches(".yaml").trim_end_matches(".rs");
            is_named(file) || is_named(stem)
        })
    }

    fn has(&self, name: &str) -> bool {
        match name.strip_prefix('…') {
            Some(end) => self.names.iter().any(|name| name.ends_with(end)),
            None => self.names.contains(name) || self.has_file(name),
        }
    }
}

/// What stands behind `fn`, and whole texts, by which some programs know their tests.
fn names_of_code(text: &str) -> Vec<String> {
    let functions = text.split("fn ").skip(1);
    let functions = functions.filter_map(|rest| rest.split(['(', '<']).next());
    let texts = text.split('"').filter(|text| text.contains('_'));
    functions.chain(texts).map(str::to_owned).collect()
}

/// `name: …` of each case, on one line with the rest or on one of its own.
fn names_of_cases(text: &str) -> Vec<String> {
    let names = text.split("name: ").skip(1);
    let names = names.filter_map(|rest| rest.split([',', '\n', '}']).next());
    names
        .map(|name| name.trim().trim_matches('"').to_owned())
        .collect()
}

/// Every name in the last column of tables of which that column is called `test`, with its line.
fn named_tests(text: &str) -> Vec<(usize, String)> {
    let mut named = vec![];
    let mut names_tests = false;
    for (number, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            names_tests = false;
            continue;
        };
        let cell = row.trim_end().trim_end_matches('|').rsplit('|').next();
        let cell = cell.unwrap_or_default().trim();
        if cell == "test" {
            names_tests = true;
        } else if names_tests {
            let quoted = cell.split('`').skip(1).step_by(2);
            named.extend(quoted.map(|name| (number + 1, name.to_owned())));
        }
    }
    named
}

fn references() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("docs/reference")).expect("a folder");
    let files = folder.map(|entry| entry.expect("an entry").path());
    files
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("proxy"))
        })
        .collect()
}

#[test]
fn every_test_that_the_reference_of_the_proxy_names_exists() {
    let known = Known::everywhere();
    let mut count = 0;
    for path in references() {
        let text = fs::read_to_string(&path).expect("readable");
        for (line, name) in named_tests(&text) {
            count += 1;
            let path = path.display();
            assert!(
                known.has(&name),
                "{path}:{line}: no test is called {name:?}"
            );
        }
    }
    assert!(count > 100, "only {count} names were found");
}

#[test]
fn a_name_that_nothing_has_is_noticed() {
    let known = Known::everywhere();

    for name in [
        ["no", "one_is_called_so"].concat(),
        "routing/nothing".into(),
        "nothing.rs".into(),
        ["…_nobody", "_at_all"].concat(),
    ] {
        assert!(!known.has(&name), "{name}");
    }
    let table = "| what | test |\n|---|---|\n| a | `one`, `two` |\n\n| `three` |\n";
    let named: Vec<_> = named_tests(table)
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(named, ["one", "two"]);
}
