//! Changes to the headers of requests and responses.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::access_log::format::Template;

/// What to do where the header is, or is not, already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderAction {
    /// Add one more value.
    Append,
    /// Add where there is none.
    AddIfAbsent,
    /// Replace all, or add.
    Overwrite,
    /// Replace where there is one.
    OverwriteIfPresent,
}

/// What a header is set to.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderText {
    /// Always this.
    Literal(HeaderValue),
    /// What operators stand for.
    Formatted(Template),
}

/// One header to set.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderChange {
    /// Which.
    pub name: HeaderName,
    /// To what.
    pub text: HeaderText,
    /// How.
    pub action: HeaderAction,
    /// Whether it is set also where the text comes to nothing.
    pub keeps_empty: bool,
}

/// Headers to set and to remove; first the removals, then what replaces, then what is added.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderMutations {
    /// Headers to set.
    pub changes: Vec<HeaderChange>,
    /// Headers to remove.
    pub removals: Vec<HeaderName>,
}

impl HeaderMutations {
    /// Carries them out where nothing is known of the exchange: operators stand for nothing.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.apply_in(headers, |_| String::new());
    }

    /// Carries them out; `text` says what operators stand for. As in Envoy, all texts and conditions are of the
    /// headers as they were after the removals.
    pub fn apply_in(
        &self,
        headers: &mut HeaderMap,
        text: impl Fn((&Template, &HeaderMap)) -> String,
    ) {
        for name in &self.removals {
            headers.remove(name);
        }
        if self.changes.is_empty() {
            return;
        }
        let changes: Vec<_> = self
            .changes
            .iter()
            .filter(|change| change.is_due(headers))
            .filter_map(|change| Some((change, change.value(headers, &text)?)))
            .collect();
        for (change, value) in changes.iter().filter(|(change, _)| change.replaces()) {
            headers.insert(change.name.clone(), value.clone());
        }
        for (change, value) in changes {
            if !change.replaces() {
                headers.append(change.name.clone(), value);
            }
        }
    }
}

impl HeaderMutations {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.removals.is_empty()
    }

    /// Whether some texts hold operators.
    pub fn is_formatted(&self) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| matches!(change.text, HeaderText::Formatted(_)))
    }

    /// The same with what operators stand for now, for headers that are still to come. What is no value of a
    /// header is left out.
    pub fn settled(&self, text: impl Fn(&Template) -> String) -> Self {
        let settled = |change: &HeaderChange| {
            let HeaderText::Formatted(template) = &change.text else {
                return Some(change.clone());
            };
            Some(HeaderChange {
                text: HeaderText::Literal(text(template).try_into().ok()?),
                ..change.clone()
            })
        };
        HeaderMutations {
            changes: self.changes.iter().filter_map(settled).collect(),
            removals: self.removals.clone(),
        }
    }
}

impl HeaderChange {
    /// Sets a header to a literal value.
    pub fn literal(name: HeaderName, value: HeaderValue, action: HeaderAction) -> Self {
        HeaderChange {
            name,
            text: HeaderText::Literal(value),
            action,
            keeps_empty: false,
        }
    }

    fn is_due(&self, headers: &HeaderMap) -> bool {
        match self.action {
            HeaderAction::Append | HeaderAction::Overwrite => true,
            HeaderAction::AddIfAbsent => !headers.contains_key(&self.name),
            HeaderAction::OverwriteIfPresent => headers.contains_key(&self.name),
        }
    }

    fn replaces(&self) -> bool {
        matches!(
            self.action,
            HeaderAction::Overwrite | HeaderAction::OverwriteIfPresent
        )
    }

    /// `None` where it comes to nothing that a header could hold.
    fn value(
        &self,
        headers: &HeaderMap,
        text: impl Fn((&Template, &HeaderMap)) -> String,
    ) -> Option<HeaderValue> {
        let value = match &self.text {
            HeaderText::Literal(value) => value.clone(),
            HeaderText::Formatted(template) => text((template, headers)).try_into().ok()?,
        };
        (self.keeps_empty || !value.is_empty()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(action: HeaderAction, present: Option<&'static str>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = present {
            headers.insert("x-a", HeaderValue::from_static(value));
        }
        let (name, value) = (
            HeaderName::from_static("x-a"),
            HeaderValue::from_static("new"),
        );
        let change = HeaderChange::literal(name, value, action);
        HeaderMutations {
            changes: vec![change],
            removals: vec![],
        }
        .apply(&mut headers);
        headers
            .get_all("x-a")
            .iter()
            .map(|value| value.to_str().expect("text").to_owned())
            .collect()
    }

    #[test]
    fn each_action_minds_what_is_there() {
        assert_eq!(after(HeaderAction::Append, Some("old")), ["old", "new"]);
        assert_eq!(after(HeaderAction::AddIfAbsent, Some("old")), ["old"]);
        assert_eq!(after(HeaderAction::AddIfAbsent, None), ["new"]);
        assert_eq!(after(HeaderAction::Overwrite, Some("old")), ["new"]);
        assert_eq!(
            after(HeaderAction::OverwriteIfPresent, None),
            Vec::<String>::new()
        );
    }

    #[test]
    fn texts_and_conditions_are_of_the_headers_as_they_were() {
        let formatted = |name, text, action| HeaderChange {
            name: HeaderName::from_static(name),
            text: HeaderText::Formatted(Template::parse(text).expect("a template")),
            action,
            keeps_empty: false,
        };
        let mutations = HeaderMutations {
            changes: vec![
                formatted("x-a", "%REQ(x-a)%+", HeaderAction::Append),
                formatted("x-a", "%REQ(x-a)%!", HeaderAction::Overwrite),
                formatted("x-b", "%REQ(x-a)%", HeaderAction::AddIfAbsent),
                formatted("x-c", "%REQ(x-none)%", HeaderAction::Append),
            ],
            removals: vec![HeaderName::from_static("x-b")],
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        headers.insert("x-b", HeaderValue::from_static("old"));

        mutations.apply_in(&mut headers, |(template, before)| {
            if template == &Template::parse("%REQ(x-none)%").expect("a template") {
                return String::new();
            }
            before["x-a"].to_str().expect("text").to_owned()
        });

        let all: Vec<_> = headers.get_all("x-a").iter().collect();
        assert_eq!(all, ["1", "1"]);
        assert_eq!(headers["x-b"], "1");
        assert!(!headers.contains_key("x-c"));
    }
}
