//! Changes to the headers of requests and responses.

use http::{HeaderMap, HeaderName, HeaderValue};

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

/// One header to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderChange {
    /// Which.
    pub name: HeaderName,
    /// To what.
    pub value: HeaderValue,
    /// How.
    pub action: HeaderAction,
}

/// Headers to set and to remove; first the removals, then the changes in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutations {
    /// Headers to set.
    pub changes: Vec<HeaderChange>,
    /// Headers to remove.
    pub removals: Vec<HeaderName>,
}

impl HeaderMutations {
    /// Carries them out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.removals {
            headers.remove(name);
        }
        for change in &self.changes {
            change.apply(headers);
        }
    }
}

impl HeaderChange {
    fn apply(&self, headers: &mut HeaderMap) {
        let is_present = headers.contains_key(&self.name);
        match (self.action, is_present) {
            (HeaderAction::Append, _) => {
                headers.append(self.name.clone(), self.value.clone());
            }
            (HeaderAction::AddIfAbsent, false)
            | (HeaderAction::Overwrite, _)
            | (HeaderAction::OverwriteIfPresent, true) => {
                headers.insert(self.name.clone(), self.value.clone());
            }
            (HeaderAction::AddIfAbsent, true) | (HeaderAction::OverwriteIfPresent, false) => {}
        }
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
        let change = HeaderChange {
            name: HeaderName::from_static("x-a"),
            value: HeaderValue::from_static("new"),
            action,
        };
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
}
