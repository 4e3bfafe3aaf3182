//! The control plane: store, API, translation to xDS, certificate authority.
