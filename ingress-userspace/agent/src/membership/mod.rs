//! Which nodes share the virtual IPs, under which ids, and who owns connections.
//!
//! `nodes` is the set that every node makes the same table of, as a file or an object has it, and the
//! `announcer` of each virtual IP follows from it. In a cluster
//! each agent says in a `report` how its node is and keeps it fresh (`keep`); the `operator` hears all of
//! them and publishes one set after the other, by a `plan` of steps that lose no connection; agents `follow`
//! what is published.

mod announcer;
mod nodes;
mod report;

mod plan;

mod cluster;

mod follow;
mod keep;
mod operator;

pub use cluster::Cluster;
pub use follow::{Published, follow};
pub use keep::{Keeping, keep};
pub use nodes::{LONGEST, Membership, MembershipError, NamedNode, is_of_a_host};
pub use operator::operate;
pub use report::{NodeState, Report};
