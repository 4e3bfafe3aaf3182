//! Which system calls a container may make: the allow-list that other runtimes use by default.
//!
//! Two filters, because each has one answer only. The first allows the list and lets everything else look
//! unknown (ENOSYS), so that a C library falls back from calls newer than this list. The second refuses
//! what exists but is forbidden (EPERM), which is what programs expect to be told.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::InitError;

mod table;

/// CLONE_NEW…: a container makes no namespaces, in which it would have capabilities again.
const NAMESPACE_FLAGS: u64 = 0x7E02_0080;
/// The personalities that other runtimes allow: Linux, UNAME26 and 32-bit variants of them, and a query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Sockets between virtual machine and host would lead around the sidecar, as would raw packets.
const FORBIDDEN_FAMILIES: [u64; 2] = [40, 17];

/// Filters this process and all it will ever execute. Needs no_new_privs.
pub(super) fn install() -> Result<(), InitError> {
    seccompiler::apply_filter(&allow_list()?)?;
    seccompiler::apply_filter(&refusals()?)?;
    Ok(())
}

fn allow_list() -> Result<BpfProgram, InitError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = table::ALLOWED
        .iter()
        .map(|number| (*number, Vec::new()))
        .collect();
    let argument = |index, compare, value| {
        let condition = SeccompCondition::new(index, SeccompCmpArgLen::Qword, compare, value)?;
        SeccompRule::new(vec![condition])
    };
    let no_namespaces = SeccompCmpOp::MaskedEq(NAMESPACE_FLAGS);
    rules.insert(
        libc::SYS_clone,
        vec![argument(0, no_namespaces.clone(), 0)?],
    );
    rules.insert(libc::SYS_unshare, vec![argument(0, no_namespaces, 0)?]);
    let personalities = PERSONALITIES.map(|value| argument(0, SeccompCmpOp::Eq, value));
    rules.insert(
        libc::SYS_personality,
        personalities.into_iter().collect::<Result<_, _>>()?,
    );
    let families = FORBIDDEN_FAMILIES
        .map(|family| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family));
    let allowed_families = SeccompRule::new(families.into_iter().collect::<Result<_, _>>()?)?;
    rules.insert(libc::SYS_socket, vec![allowed_families]);
    compile(
        rules,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        SeccompAction::Allow,
    )
}

fn refusals() -> Result<BpfProgram, InitError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = table::REFUSED
        .iter()
        .map(|number| (*number, Vec::new()))
        .collect();
    // What the allow-list lets through only with some arguments is refused with the others, not unknown.
    let flags = |bit: u64| {
        let condition =
            SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)?;
        SeccompRule::new(vec![condition])
    };
    let namespaces = || {
        let bits = (0..64)
            .map(|bit| 1_u64 << bit)
            .filter(|bit| NAMESPACE_FLAGS & bit != 0);
        bits.map(flags).collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_clone, namespaces()?);
    rules.insert(libc::SYS_unshare, namespaces()?);
    compile(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
    )
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, InitError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, matching, architecture)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own bound (BPF_MAXINSNS).
    const MAX_INSTRUCTIONS: usize = 4096;

    #[test]
    fn both_filters_fit_into_the_kernel() {
        assert!(allow_list().expect("compiled").len() < MAX_INSTRUCTIONS);
        assert!(refusals().expect("compiled").len() < MAX_INSTRUCTIONS);
    }

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        for number in table::REFUSED {
            assert!(!table::ALLOWED.contains(number), "system call {number}");
        }
    }

    #[test]
    fn calls_with_filtered_arguments_are_not_allowed_outright() {
        for number in [
            libc::SYS_clone,
            libc::SYS_unshare,
            libc::SYS_personality,
            libc::SYS_socket,
        ] {
            assert!(!table::ALLOWED.contains(&number), "system call {number}");
        }
    }
}
