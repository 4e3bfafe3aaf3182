//! A small test runner: named tests one after the other, filters as the standard one has them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::support::Mesh;

/// No test takes longer; most take less than a second.
const DEADLINE: Duration = Duration::from_secs(120);

type Body = Box<dyn Fn(&tokio::runtime::Runtime)>;

/// The tests, in the order in which they run.
#[derive(Default)]
pub(crate) struct Tests {
    tests: Vec<(&'static str, Body)>,
}

impl Tests {
    /// A test with a mesh of its own, which must leave nothing behind.
    pub(crate) fn add<F>(&mut self, name: &'static str, body: fn(Mesh) -> F)
    where
        F: Future<Output = Mesh> + 'static,
    {
        let run = move |runtime: &tokio::runtime::Runtime| {
            runtime.block_on(async {
                let test = async {
                    let mesh = body(Mesh::start().await).await;
                    mesh.end().await;
                };
                tokio::time::timeout(DEADLINE, test)
                    .await
                    .expect("the test ends in time");
            });
        };
        self.tests.push((name, Box::new(run)));
    }

    /// Runs those that the arguments name, or all.
    pub(crate) fn run(self, arguments: &[OsString]) -> ExitCode {
        let words: Vec<String> = arguments
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
        let is_chosen = |name: &str| {
            filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
        };
        let chosen: Vec<_> = self
            .tests
            .iter()
            .filter(|(name, _)| is_chosen(name))
            .collect();
        if words.iter().any(|word| word == "--list") {
            chosen.iter().for_each(|(name, _)| println!("{name}: test"));
            return ExitCode::SUCCESS;
        }
        let is_root = nix::unistd::Uid::effective().is_root();
        let user = if is_root { "root" } else { "an ordinary user" };
        println!("\nrunning {} tests as {user}", chosen.len());
        let failed: Vec<&str> = chosen
            .iter()
            .filter(|test| !run_one(test))
            .map(|(name, _)| *name)
            .collect();
        println!(
            "\ntest result as {user}: {} passed; {} failed",
            chosen.len() - failed.len(),
            failed.len()
        );
        let again = if is_root {
            run_as_ordinary_user(&words)
        } else {
            true
        };
        if failed.is_empty() && again {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn run_one((name, body): &(&'static str, Body)) -> bool {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let started = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| body(&runtime))).is_ok();
    runtime.shutdown_background();
    let word = if passed { "ok" } else { "FAILED" };
    println!(
        "test {name} ... {word} ({} ms)",
        started.elapsed().as_millis()
    );
    passed
}

/// The same once more without privileges, from a copy that the user may execute.
fn run_as_ordinary_user(words: &[String]) -> bool {
    let user = std::env::var("WEFT_TEST_USER").unwrap_or_else(|_| "weftdev".to_owned());
    if !matches!(nix::unistd::User::from_name(&user), Ok(Some(_))) {
        println!("no user {user}: not run as an ordinary user; `useradd -m {user}` makes one");
        return std::env::var_os("CI").is_none();
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let program = directory.path().join("node-test");
    fs::copy("/proc/self/exe", &program).expect("a copy of the program");
    let status = Command::new("setpriv")
        .args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--init-groups",
            "--inh-caps=-all",
            "--reset-env",
        ])
        .arg(&program)
        .args(words)
        .current_dir("/")
        .status()
        .expect("setpriv of util-linux");
    status.success()
}
