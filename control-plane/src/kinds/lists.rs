//! Lists that are maps in truth: which fields tell their elements apart.
//!
//! Kubernetes says so in its schemas (`x-kubernetes-list-map-keys`, `x-kubernetes-patch-merge-key`), which
//! `k8s-openapi` leaves out. Strategic merge patches and server-side apply go by this table, and the published
//! schemas repeat it.

/// How the elements of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// By these fields; the first is the key of strategic merge patches.
    Map(&'static [&'static str]),
    /// By their value.
    Set,
}

/// The list behind `field` of the type that the schema calls `schema`; `None`: replaced as a whole.
pub fn list_type(schema: &str, field: &str) -> Option<ListType> {
    use ListType::{Map, Set};
    let short = schema.rsplit('.').next().unwrap_or(schema);
    Some(match (short, field) {
        ("ObjectMeta", "finalizers") => Set,
        ("ObjectMeta", "ownerReferences") => Map(&["uid"]),
        ("PodSpec", "containers" | "initContainers" | "ephemeralContainers" | "volumes") => {
            Map(&["name"])
        }
        ("PodSpec", "imagePullSecrets" | "schedulingGates" | "resourceClaims") => Map(&["name"]),
        ("PodSpec", "hostAliases") => Map(&["ip"]),
        ("PodSpec", "topologySpreadConstraints") => Map(&["topologyKey", "whenUnsatisfiable"]),
        ("Container" | "EphemeralContainer", "ports") => Map(&["containerPort", "protocol"]),
        ("Container" | "EphemeralContainer", "env") => Map(&["name"]),
        ("Container" | "EphemeralContainer", "volumeMounts") => Map(&["mountPath"]),
        ("Container" | "EphemeralContainer", "volumeDevices") => Map(&["devicePath"]),
        ("ServiceSpec", "ports") => Map(&["port", "protocol"]),
        ("ServiceAccount", "secrets") => Map(&["name"]),
        ("PodStatus", "podIPs" | "hostIPs") => Map(&["ip"]),
        (
            "PodStatus" | "DeploymentStatus" | "ServiceStatus" | "JobStatus" | "NamespaceStatus",
            "conditions",
        ) => Map(&["type"]),
        _ => return None,
    })
}

/// What a key field counts as where an element leaves it out.
pub fn default_key(field: &str) -> Option<&'static str> {
    (field == "protocol").then_some("TCP")
}
