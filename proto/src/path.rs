//! Where in a message a search is, for whoever has to say so.

use std::fmt;

/// Where the search is: a list through the stack, written out only when something is found.
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
    pub(crate) depth: usize,
}

/// One step of it.
pub(crate) enum Step<'a> {
    /// Into the message itself, or into the one in an `Any`; adds nothing to the text.
    Inside,
    /// A field of this name.
    Field(&'a str),
    /// A member of a list.
    Element(&'a str, usize),
    /// An entry of a map.
    Entry(&'a str, &'a str),
}

impl<'a> Path<'a> {
    /// The message itself.
    pub(crate) const ROOT: Self = Path {
        parent: None,
        step: Step::Inside,
        depth: 0,
    };

    /// One step further.
    pub(crate) fn child(&'a self, step: Step<'a>) -> Path<'a> {
        Path {
            parent: Some(self),
            step,
            depth: self.depth + 1,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = Vec::with_capacity(self.depth + 1);
        let mut path = Some(self);
        while let Some(Path { parent, step, .. }) = path {
            steps.push(step);
            path = *parent;
        }
        let mut separator = "";
        for step in steps.into_iter().rev() {
            match step {
                Step::Inside => continue,
                Step::Field(name) => write!(out, "{separator}{name}")?,
                Step::Element(name, index) => write!(out, "{separator}{name}[{index}]")?,
                Step::Entry(name, key) => write!(out, "{separator}{name}[{key:?}]")?,
            }
            separator = ".";
        }
        Ok(())
    }
}
