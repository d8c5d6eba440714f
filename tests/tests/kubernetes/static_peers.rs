//! Without an agent: each node's configuration names its peers.

use crate::fixture::on;
use crate::network::Network;
use crate::reach;

#[test]
fn pods_reach_each_other_and_services_with_peers_from_the_configuration() {
    on(Network::Static, |lab| {
        let (cluster, pods) = lab.parts()?;
        reach::directly(cluster, pods)?;
        reach::through_services(cluster, pods)
    });
}
