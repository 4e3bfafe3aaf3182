//! Statistics with what they are of, so that a name can be made of them, or a metric with labels.

use std::borrow::Cow;
use std::sync::Arc;

/// What a statistic is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// The whole process.
    Process,
    /// A cluster, by name.
    Cluster(Arc<str>),
    /// A listener, by its first address.
    Listener(Arc<str>),
    /// A connection manager on a listener: by the listener's first address and its own prefix.
    ManagerOnListener(Arc<str>, Arc<str>),
    /// Connection managers of a prefix.
    Manager(Arc<str>),
    /// TCP proxies of a prefix.
    Tunnel(Arc<str>),
}

impl Scope {
    /// What its names begin with.
    fn prefix(&self) -> String {
        written(&match self {
            Scope::Process => String::new(),
            Scope::Cluster(name) => format!("cluster.{name}."),
            Scope::Listener(address) => format!("listener.{address}."),
            Scope::ManagerOnListener(address, prefix) => {
                format!("listener.{address}.http.{prefix}.")
            }
            Scope::Manager(prefix) => format!("http.{prefix}."),
            Scope::Tunnel(prefix) => format!("tcp.{prefix}."),
        })
    }
}

/// As Envoy writes names of things within those of statistics.
pub(super) fn written(name: &str) -> String {
    name.replace("://", "_")
        .replace(":/", "_")
        .replace(':', "_")
}

/// A value, what it says, and of what.
#[derive(Debug)]
pub(super) struct Stat {
    pub(super) scope: Scope,
    pub(super) name: Cow<'static, str>,
    pub(super) value: u64,
}

impl Stat {
    /// One that is known by its whole name: what it is of is the part behind `cluster.`, `http.` or `tcp.`, which has
    /// no dot.
    pub(super) fn named(name: &str, value: u64) -> Self {
        let parts: Vec<&str> = name.splitn(3, '.').collect();
        let (scope, name) = match parts[..] {
            ["cluster", of, rest] => (Scope::Cluster(of.into()), rest),
            ["http", of, rest] => (Scope::Manager(of.into()), rest),
            ["tcp", of, rest] => (Scope::Tunnel(of.into()), rest),
            _ => (Scope::Process, name),
        };
        let name = Cow::Owned(name.to_owned());
        Stat { scope, name, value }
    }

    /// Its whole name.
    pub(super) fn whole_name(&self) -> String {
        self.scope.prefix() + &self.name
    }
}

/// All that is told.
#[derive(Debug, Default)]
pub(super) struct Told(Vec<Stat>);

impl Told {
    pub(super) fn add(&mut self, stat: Stat) {
        self.0.push(stat);
    }

    /// Several of one thing.
    pub(super) fn add_all<N: Into<Cow<'static, str>>>(
        &mut self,
        scope: &Scope,
        all: impl IntoIterator<Item = (N, u64)>,
    ) {
        self.0.extend(all.into_iter().map(|(name, value)| Stat {
            scope: scope.clone(),
            name: name.into(),
            value,
        }));
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Stat> {
        self.0.iter_mut()
    }

    /// Leaves out those that are not wanted.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Stat) -> bool) {
        self.0.retain(is_wanted);
    }

    pub(super) fn into_all(self) -> Vec<Stat> {
        self.0
    }

    /// Whole names with their values, in order.
    pub(super) fn by_name(self) -> Vec<(String, u64)> {
        let all = self.0.into_iter();
        let mut all: Vec<_> = all.map(|stat| (stat.whole_name(), stat.value)).collect();
        all.sort();
        all.dedup_by(|one, other| one.0 == other.0);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_it_is_of_and_taken_apart_again() {
        for name in [
            "cluster.a.rq",
            "http.web.rbac.allowed",
            "tcp.raw.x",
            "server.live",
        ] {
            let mut told = Told::default();
            told.add(Stat::named(name, 7));

            assert_eq!(told.by_name(), [(name.to_owned(), 7)]);
        }
        let of = Stat::named("http.web.rbac.allowed", 1);
        assert_eq!(of.scope, Scope::Manager("web".into()));
        assert_eq!(written("xds://a/b:80"), "xds_a/b_80");
    }
}
