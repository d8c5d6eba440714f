//! What the members of the cluster mean for this node.
