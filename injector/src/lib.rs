//! Adds sidecars to pods: Compose translation, injection, the local launcher and the socket broker.
