//! How results reach people and scripts: tables and documents on standard output, everything else on standard error.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use comfy_table::presets;
use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::arguments::{Global, Output};
use crate::failure::Failure;

/// Carries out `--no-color`, for this process and everything it prints.
pub(crate) fn configure(global: &Global) {
    if global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        anstream::ColorChoice::Never.write_global();
    }
}

/// Prints why a command failed.
pub(crate) fn complain(failure: &Failure) {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{red}error{red:#}: {failure}");
}

/// Prints what the user should know though nothing failed.
pub(crate) fn warn(text: &str) {
    let yellow = anstyle::AnsiColor::Yellow.on_default().bold();
    anstream::eprintln!("{yellow}warning{yellow:#}: {text}");
}

/// Prints a remark, unless told to be quiet.
pub(crate) fn remark(global: &Global, text: &str) {
    if !global.quiet {
        anstream::eprintln!("{text}");
    }
}

/// Why results did not reach standard output.
static LOSS: OnceLock<String> = OnceLock::new();

/// A line on standard output. A closed pipe (`weft ps | head -1`) is no failure; any other loss is told by [`loss`].
pub(crate) fn line(text: &str) {
    match try_line(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            LOSS.get_or_init(|| error.to_string());
        }
        _ => {}
    }
}

/// A line on standard output, for who has to stop when nobody reads it any more.
///
/// # Errors
/// Where it cannot be written, as to a closed pipe.
pub(crate) fn try_line(text: &str) -> std::io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush())
}

/// What was lost of the results: a full disk, say.
pub(crate) fn loss() -> Option<Failure> {
    let reason = LOSS.get()?;
    Some(Failure::new(format!("writing the results: {reason}")))
}

/// Rows under headings, without borders: to be read, and to be cut by column.
pub(crate) fn table<R, C>(headings: &[&str], rows: R)
where
    R: IntoIterator<Item = Vec<C>>,
    C: Into<String>,
{
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().map(Into::into).collect::<Vec<String>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    line(&table.trim_fmt());
}

/// Begins a new screen, where there is one.
pub(crate) fn clear_screen() {
    if std::io::stdout().is_terminal() {
        line("\x1b[H\x1b[2J");
    }
}

/// A document in the format asked for; `None` where a table was asked for.
pub(crate) fn document<T: Serialize>(format: Output, value: &T) -> Result<Option<()>, Failure> {
    match format {
        Output::Json => line(&serde_json::to_string_pretty(value)?),
        Output::Yaml | Output::K8s => line(yaml(value)?.trim_end()),
        Output::Table | Output::Wide | Output::Name => return Ok(None),
    }
    Ok(Some(()))
}

/// As YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| Failure::new(format!("writing YAML: {error}")))
}

/// A spinner for work that takes longer than a second; silent where nobody watches.
pub(crate) fn progress(global: &Global, text: &str) -> ProgressBar {
    if global.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(text.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// `12.3 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[allow(
        clippy::cast_precision_loss,
        reason = "a size for people, to one decimal"
    )]
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `45s`, `12m`, `3h20m`, `2d4h`: the two largest units, as `kubectl` prints ages.
pub(crate) fn age(seconds: i64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{rest}s"),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..172_800 => format!("{}h{minutes}m", seconds / 3_600),
        _ => format!("{days}d{hours}h"),
    }
}

/// The age of an RFC 3339 time, or `<unknown>`.
pub(crate) fn age_of(time: Option<&str>) -> String {
    match time.and_then(|time| time.parse::<jiff::Timestamp>().ok()) {
        Some(time) => age(jiff::Timestamp::now().as_second() - time.as_second()),
        None => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        assert_eq!(age(5), "5s");
        assert_eq!(age(119), "119s");
        assert_eq!(age(125), "2m5s");
        assert_eq!(age(3_700), "61m");
        assert_eq!(age(4 * 3_600 + 120), "4h2m");
        assert_eq!(age(3 * 86_400 + 7_200), "3d2h");
    }

    #[test]
    fn sizes_are_rounded_to_one_decimal() {
        assert_eq!(bytes(900), "900 B");
        assert_eq!(bytes(6_500_000), "6.2 MiB");
    }
}
