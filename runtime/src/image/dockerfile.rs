//! Parses Dockerfiles into stages and steps.
//!
//! The grammar of Docker's "Dockerfile reference". What weft does not do is an error that says
//! so, with the line; nothing is skipped in silence. Variables stay in the text: they are known
//! only while building.

pub(super) mod instruction;
pub(super) mod lines;
pub(super) mod options;
pub(super) mod words;

use instruction::{Argument, Instruction};
use lines::{Line, lines};

/// Building a stage needs the stages that it begins from, one inside of the other.
const STAGES: usize = 100;
/// More than any person writes.
const INSTRUCTIONS: usize = 10_000;

/// Why a Dockerfile is refused, and at which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// One-based.
    pub(super) line: usize,
    pub(super) reason: String,
}

/// A parsed Dockerfile with at least one stage.
#[derive(Debug)]
pub(super) struct Dockerfile {
    /// The character that continues lines and quotes characters.
    pub(super) escape: char,
    /// `ARG`s before the first `FROM`, for use in `FROM` lines.
    pub(super) arguments: Vec<Argument>,
    pub(super) stages: Vec<Stage>,
}

/// From one `FROM` to the next.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) line: usize,
    /// The `FROM` line as written.
    pub(super) text: String,
    /// Image, earlier stage or `scratch`, before expansion.
    pub(super) base: String,
    pub(super) platform: Option<String>,
    /// Lower case.
    pub(super) name: Option<String>,
    pub(super) steps: Vec<Step>,
}

/// One instruction of a stage.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) line: usize,
    /// The instruction in one line, for people and for the image's history.
    pub(super) text: String,
    pub(super) instruction: Instruction,
}

impl Dockerfile {
    pub(super) fn parse(source: &str) -> Result<Dockerfile, Fault> {
        let (escape, lines) = lines(source)?;
        let mut dockerfile = Dockerfile {
            escape,
            arguments: Vec::new(),
            stages: Vec::new(),
        };
        for (count, line) in lines.into_iter().enumerate() {
            let number = line.number;
            if count >= INSTRUCTIONS || dockerfile.stages.len() > STAGES {
                let reason = format!("more than {INSTRUCTIONS} instructions or {STAGES} stages");
                return Err(Fault {
                    line: number,
                    reason,
                });
            }
            dockerfile.add(line).map_err(|reason| Fault {
                line: number,
                reason,
            })?;
        }
        if dockerfile.stages.is_empty() {
            return Err(Fault {
                line: 1,
                reason: "no FROM: a Dockerfile begins with the image to start from".to_owned(),
            });
        }
        Ok(dockerfile)
    }

    /// The stage that `target` names, the last where it is empty.
    pub(super) fn target(&self, target: &str) -> Option<usize> {
        if target.is_empty() {
            return self.stages.len().checked_sub(1);
        }
        self.stage(target).or_else(|| {
            let number: usize = target.parse().ok()?;
            (number < self.stages.len()).then_some(number)
        })
    }

    /// The stage of this name.
    pub(super) fn stage(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        let is_it = |stage: &Stage| stage.name.as_deref() == Some(name.as_str());
        self.stages.iter().position(is_it)
    }

    fn add(&mut self, line: Line) -> Result<(), String> {
        let number = line.number;
        let text = line.summary();
        if line.keyword == "FROM" {
            let stage = from(&line, text)?;
            if let Some(name) = &stage.name
                && self.stage(name).is_some()
            {
                return Err(format!("there is already a stage named {name}"));
            }
            self.stages.push(stage);
            return Ok(());
        }
        let instruction = Instruction::parse(line, self.escape)?;
        match (self.stages.last_mut(), instruction) {
            (None, Instruction::Arg(arguments)) => self.arguments.extend(arguments),
            (None, _) => return Err("only ARG may come before the first FROM".to_owned()),
            (Some(stage), instruction) => stage.steps.push(Step {
                line: number,
                text,
                instruction,
            }),
        }
        Ok(())
    }
}

fn from(line: &Line, text: String) -> Result<Stage, String> {
    let (flags, rest) = options::split(&line.rest)?;
    let mut platform = None;
    for flag in flags {
        match flag.name {
            "platform" => platform = Some(flag.value.to_owned()),
            _ => return Err(flag.unknown("FROM", &["platform"])),
        }
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (*base, Some(stage_name(name)?)),
        _ => return Err("expected FROM IMAGE [AS NAME]".to_owned()),
    };
    Ok(Stage {
        line: line.number,
        text,
        base: base.to_owned(),
        platform,
        name,
        steps: Vec::new(),
    })
}

fn stage_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(allowed) {
        return Err(format!(
            "{name:?} is no stage name: it begins with a letter, then letters, digits, '_', '-' and '.'"
        ));
    }
    Ok(name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::instruction::{CopyKind, Form, Source};
    use super::*;

    fn parse(source: &str) -> Dockerfile {
        Dockerfile::parse(source).unwrap()
    }

    fn fault(source: &str) -> Fault {
        Dockerfile::parse(source).unwrap_err()
    }

    fn only_step(source: &str) -> Instruction {
        let mut dockerfile = parse(&format!("FROM scratch\n{source}\n"));
        assert_eq!(dockerfile.stages[0].steps.len(), 1);
        dockerfile.stages[0].steps.remove(0).instruction
    }

    #[test]
    fn stages_have_names_bases_and_line_numbers() {
        let dockerfile = parse(
            "# comment\nARG V=1\n\nFROM --platform=linux/amd64 a:$V AS Build\nRUN x\nFROM scratch\nCOPY --from=build /x /\n",
        );

        assert_eq!(dockerfile.arguments[0].name, "V");
        let [build, last] = dockerfile.stages.as_slice() else {
            panic!()
        };
        assert_eq!(
            (build.line, build.base.as_str(), build.name.as_deref()),
            (4, "a:$V", Some("build"))
        );
        assert_eq!(last.steps[0].line, 7);
        assert_eq!(dockerfile.target("BUILD"), Some(0));
        assert_eq!(dockerfile.target(""), Some(1));
        assert_eq!(dockerfile.target("1"), Some(1));
        assert_eq!(dockerfile.target("nope"), None);
    }

    #[test]
    fn an_unknown_instruction_names_its_line_and_the_nearest_one() {
        let fault = fault("FROM scratch\n\nCOPPY a b\n");
        assert_eq!(fault.line, 3);
        assert!(
            fault.reason.contains("COPPY") && fault.reason.contains("COPY"),
            "{}",
            fault.reason
        );
    }

    #[test]
    fn what_weft_does_not_do_is_refused_by_name() {
        for (line, word) in [
            ("ONBUILD RUN x", "ONBUILD"),
            ("ADD https://example.org/x /", "https://example.org/x"),
            ("ADD git@example.org:a/b.git /", "git"),
            ("RUN --mount=type=secret,id=x cat x", "secret"),
            ("RUN --network=none x", "network"),
            ("COPY --parents a b/", "parents"),
            ("COPY a", "COPY"),
            ("HEALTHCHECK --intervall=5s CMD x", "interval"),
            ("EXPOSE", "EXPOSE"),
            ("CMD [\"a\", 1]", "strings"),
        ] {
            let fault = fault(&format!("FROM scratch\n{line}\n"));
            assert_eq!(fault.line, 2, "{line}");
            assert!(fault.reason.contains(word), "{line}: {}", fault.reason);
        }
    }

    #[test]
    fn nothing_but_arg_comes_before_from() {
        assert_eq!(fault("RUN x\nFROM scratch").line, 1);
        assert_eq!(fault("").line, 1);
        assert_eq!(fault("# only a comment\n").line, 1);
    }

    #[test]
    fn continuation_lines_join_and_comments_between_them_vanish() {
        let Instruction::Run(run) = only_step("RUN a \\\n  # comment\n\n  b \\  \n c") else {
            panic!()
        };
        assert_eq!(run.form, Form::Shell("a   b  c".to_owned()));
    }

    #[test]
    fn the_escape_directive_changes_the_continuation() {
        let dockerfile = parse("# escape=`\nFROM scratch\nRUN a `\n b\nWORKDIR c:\\x\n");
        assert_eq!(dockerfile.escape, '`');
        assert_eq!(dockerfile.stages[0].steps.len(), 2);
    }

    #[test]
    fn exec_form_is_json_and_everything_else_is_shell_form() {
        let Instruction::Cmd(exec) = only_step(r#"CMD ["a", "b c"]"#) else {
            panic!()
        };
        assert_eq!(exec, Form::Exec(vec!["a".to_owned(), "b c".to_owned()]));
        let Instruction::Cmd(shell) = only_step("CMD [ -f x ]") else {
            panic!()
        };
        assert_eq!(shell, Form::Shell("[ -f x ]".to_owned()));
    }

    #[test]
    fn env_knows_both_notations() {
        let Instruction::Env(pairs) = only_step("ENV a=1 b=\"x y\" c=z\\ z") else {
            panic!()
        };
        assert_eq!(
            pairs,
            [("a", "1"), ("b", "\"x y\""), ("c", "z\\ z")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        let Instruction::Env(pairs) = only_step("ENV name some value") else {
            panic!()
        };
        assert_eq!(pairs, [("name".to_owned(), "some value".to_owned())]);
    }

    #[test]
    fn copy_takes_flags_several_sources_and_json() {
        let Instruction::Copy(copy) = only_step("COPY --from=0 --chown=1:2 --chmod=755 a b /c/")
        else {
            panic!()
        };
        assert_eq!(copy.kind, CopyKind::Copy);
        assert_eq!(copy.from.as_deref(), Some("0"));
        assert_eq!(
            copy.sources,
            ["a", "b"].map(|name| Source::Path(name.to_owned()))
        );
        assert_eq!(copy.destination, "/c/");
        let Instruction::Copy(copy) = only_step(r#"ADD ["a b", "/c d"]"#) else {
            panic!()
        };
        assert_eq!(
            (copy.kind, copy.destination.as_str()),
            (CopyKind::Add, "/c d")
        );
    }

    #[test]
    fn here_documents_belong_to_their_instruction() {
        let Instruction::Run(run) = only_step("RUN <<EOF\necho a\n# not a comment\nEOF") else {
            panic!()
        };
        assert_eq!(
            run.form,
            Form::Shell("echo a\n# not a comment\n".to_owned())
        );
        let Instruction::Run(run) = only_step("RUN cat <<'X' > f\n$a\nX") else {
            panic!()
        };
        assert_eq!(run.form, Form::Shell("cat <<'X' > f\n$a\nX".to_owned()));
        let Instruction::Copy(copy) = only_step("COPY <<-A b /x/\n\ttext\n\tA") else {
            panic!()
        };
        let expected = Source::Inline {
            name: "A".to_owned(),
            content: "text\n".to_owned(),
            expand: true,
        };
        assert_eq!(copy.sources, [expected, Source::Path("b".to_owned())]);
        assert_eq!(fault("FROM scratch\nRUN <<EOF\nx\n").line, 2);
    }

    #[test]
    fn a_health_check_has_durations_in_nanoseconds() {
        let Instruction::Healthcheck(check) =
            only_step("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=2 CMD [\"ping\"]")
        else {
            panic!()
        };
        assert_eq!(check.test, ["CMD", "ping"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (90_000_000_000, 500_000_000, 2)
        );
        let Instruction::Healthcheck(check) = only_step("HEALTHCHECK NONE") else {
            panic!()
        };
        assert_eq!(check.test, ["NONE"]);
    }

    #[test]
    fn more_stages_than_the_stack_could_hold_are_refused() {
        let stages = "FROM scratch\n".repeat(STAGES + 2);
        assert!(fault(&stages).reason.contains("stages"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        let words = [
            "FROM",
            " ",
            "a",
            "\\",
            "\n",
            "[",
            "\"",
            "'",
            "$",
            "{",
            "<<E",
            "=",
            "--x",
            "COPY",
            "ENV",
            "RUN",
            "#",
            "é",
            "HEALTHCHECK",
        ];
        let mut state: u64 = 7;
        for _ in 0..5000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push_str(words[(state >> 33) as usize % words.len()]);
            }
            let _ = Dockerfile::parse(&text);
        }
    }
}
