//! The interactive `cluster>` shell, a library over `ClusterApi`.
