//! `/logging`: what is logged, and how much of it from now on.

use http::StatusCode;

use super::reply::{Query, Reply};
use crate::app::LogControl;

/// Envoy's levels, with ours.
const LEVELS: [(&str, &str); 8] = [
    ("trace", "trace"),
    ("debug", "debug"),
    ("info", "info"),
    ("warn", "warn"),
    ("warning", "warn"),
    ("error", "error"),
    ("critical", "error"),
    ("off", "off"),
];

/// The level of the log; set by one of `level=LEVEL` and `paths=TARGET:LEVEL,…`, whose targets are Rust's.
pub fn logging(log: &LogControl, query: &Query) -> Reply {
    let directives = match asked(query, &log.directives()) {
        Ok(directives) => directives,
        Err(why) => {
            let usage = "usage: /logging?level=LEVEL, or ?paths=TARGET:LEVEL,…";
            return Reply::text(StatusCode::BAD_REQUEST, format!("{why}\n{usage}\n"));
        }
    };
    if let Some(directives) = directives
        && let Err(error) = log.set(&directives)
    {
        return Reply::text(StatusCode::BAD_REQUEST, format!("{error}\n"));
    }
    Reply::ok(format!("active loggers:\n  {}\n", log.directives()))
}

/// What shall be logged; none where nothing is asked for.
fn asked(query: &Query, before: &str) -> Result<Option<String>, String> {
    let parameters: Vec<_> = query.pairs().collect();
    match parameters[..] {
        [] => Ok(None),
        [("level", word)] => Ok(Some(level(word)?.to_owned())),
        [("paths", paths)] => {
            let mut directives = before.to_owned();
            for path in paths.split(',') {
                let pair = path.rsplit_once(':');
                let (target, word) = pair.ok_or_else(|| format!("{path:?} has no level"))?;
                directives.push_str(&format!(",{target}={}", level(word)?));
            }
            Ok(Some(directives))
        }
        _ => Err("one parameter is taken, level or paths".to_owned()),
    }
}

fn level(word: &str) -> Result<&'static str, String> {
    let known = LEVELS.iter().find(|(name, _)| *name == word);
    known
        .map(|(_, ours)| *ours)
        .ok_or_else(|| format!("{word:?} is no level"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_of(query: &str) -> Result<Option<String>, String> {
        asked(&Query::parse(query), "info")
    }

    #[test]
    fn a_level_is_for_all_and_paths_are_added() {
        assert_eq!(asked_of(""), Ok(None));
        assert_eq!(asked_of("level=warning"), Ok(Some("warn".into())));
        assert_eq!(
            asked_of("paths=weft_proxy::xds:trace,hyper:off"),
            Ok(Some("info,weft_proxy::xds=trace,hyper=off".into()))
        );
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for query in [
            "level=loud",
            "level=",
            "paths=hyper",
            "paths=",
            "paths=hyper:loud",
            "hyper=debug",
            "level=info&paths=hyper:info",
        ] {
            assert!(asked_of(query).is_err(), "{query}");
        }
    }
}
