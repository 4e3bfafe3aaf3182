//! Every command that the documents tell a reader to type is typed here, and what they show is what comes back.

use std::path::Path;

use crate::harness::bookstore::{Bookstore, COMPOSE};
use crate::harness::command::run;
use crate::harness::console::{self, Step};
use crate::harness::mesh::source;
use crate::harness::wait::eventually;

crate::harness::tests![
    every_page_on_how_to_do_something_does_it,
    the_tour_of_the_readme_works_line_by_line,
];

/// What the documents call the published port.
const PORT: &str = "18080";

fn every_page_on_how_to_do_something_does_it(bookstore: &Bookstore) {
    let folder = source().join("docs/how-to");
    let mut pages: Vec<_> = std::fs::read_dir(&folder)
        .expect("the pages")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    pages.sort();
    assert!(pages.len() >= 5, "{pages:?}");
    for page in pages {
        follow(bookstore, &page);
        bookstore.until_in_force();
        let left = bookstore.weft(&["get", "httproutes", "-o", "name"]).ok();
        let policies = bookstore
            .weft(&["get", "backendtrafficpolicies", "-o", "name"])
            .ok();
        assert_eq!(
            (left.trim(), policies.trim()),
            ("", ""),
            "{} leaves policies behind",
            page.display()
        );
    }
}

/// Its last command takes the bookstore down, so this brings it back.
fn the_tour_of_the_readme_works_line_by_line(bookstore: &Bookstore) {
    follow(bookstore, &source().join("README.md"));

    bookstore.weft(&["up", "-d", "-f", COMPOSE]).ok();
    bookstore.until_page_is_served();
}

fn follow(bookstore: &Bookstore, page: &Path) {
    let text =
        std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let steps = console::steps(&text);
    assert!(
        steps.len() >= 3,
        "{} has {} commands",
        page.display(),
        steps.len()
    );
    for step in steps {
        follow_step(bookstore, page, &step);
    }
}

/// What is shown may take a moment to be so: a policy travels, a counter follows its request.
fn follow_step(bookstore: &Bookstore, page: &Path, step: &Step) {
    let command = step.command.replace(PORT, &bookstore.port.to_string());
    let attempt = || {
        let outcome = run(bookstore
            .command("bash")
            .args(["-o", "pipefail", "-c", &command]));
        let printed = format!("{}{}", outcome.stdout, outcome.stderr)
            .replace(&bookstore.port.to_string(), PORT);
        match console::missing(step, &printed) {
            None if outcome.status == 0 => Ok(()),
            None => Err(format!("{}: {outcome}", page.display())),
            Some(line) => Err(format!("{} shows {line:?}, but {outcome}", page.display())),
        }
    };
    if is_repeatable(&step.command) {
        eventually("a document to be right", attempt);
    } else if let Err(reason) = attempt() {
        panic!("{reason}");
    }
    if step.command.starts_with("weft ") && !step.command.starts_with("weft down") {
        bookstore.until_in_force();
    }
}

/// Commands that only look may be typed again.
fn is_repeatable(command: &str) -> bool {
    [
        "weft exec",
        "weft ps",
        "weft get",
        "weft status",
        "weft proxy-",
        "curl",
        "weft certs",
        "weft logs",
    ]
    .iter()
    .any(|beginning| command.starts_with(beginning))
}
