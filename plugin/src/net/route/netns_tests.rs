//! Routes in namespaces of their own. Needs root.

use super::*;
use crate::net::{address::Dad, mac::Mac, sysctl, testing};

/// A bridge that is up and has an address of each family.
async fn uplink(netlink: &Netlink) -> Result<u32> {
    netlink.create_bridge("br0", Mac::random(), None).await?;
    let index = netlink.link("br0").await?.context("br0")?.index;
    sysctl::ensure("net/ipv6/conf/br0/addr_gen_mode", "1")?;
    netlink
        .add_address(index, "192.168.1.11/24".parse()?, Dad::Off)
        .await?;
    netlink
        .add_address(index, "fd01::11/64".parse()?, Dad::Off)
        .await?;
    Ok(index)
}

fn own() -> Filter {
    Filter {
        protocol: Some(PROTOCOL),
        ..Filter::default()
    }
}

#[test]
fn a_route_comes_back_as_it_was_added() {
    testing::netlink(async |netlink| {
        let index = uplink(netlink).await?;
        let cases = [
            ("10.244.2.0/24", Some("192.168.1.12"), 0),
            ("10.244.3.0/24", None, 253),
            ("10.244.4.0/24", Some("fd01::12"), 0),
            ("0.0.0.0/0", Some("192.168.1.1"), 0),
            ("fd00:2::/64", Some("fd01::12"), 0),
            ("::/0", Some("fd01::1"), 0),
        ];
        for (destination, gateway, scope) in cases {
            let gateway = gateway.map(str::parse).transpose()?;
            let mut route = Route::new(destination.parse()?, gateway, index);
            (route.mtu, route.advmss, route.priority) = (Some(1400), Some(1300), Some(7));
            for table in [TABLE_MAIN, 1000] {
                route.table = table;
                netlink.add_route(&route).await?;
                let listed = netlink
                    .routes(Filter {
                        table: Some(table),
                        ..own()
                    })
                    .await?;
                assert_eq!(
                    listed,
                    [Route {
                        scope: Some(scope),
                        ..route.clone()
                    }]
                );
                netlink.delete_route(&route).await?;
                netlink.delete_route(&route).await?;
                assert_eq!(netlink.routes(own()).await?, []);
            }
        }
        Ok(())
    });
}

#[test]
fn adding_twice_fails_and_replacing_moves() {
    testing::netlink(async |netlink| {
        let index = uplink(netlink).await?;
        for [destination, first, second] in [
            ["10.244.2.0/24", "192.168.1.12", "192.168.1.13"],
            ["fd00:2::/64", "fd01::12", "fd01::13"],
        ] {
            let route = Route::new(destination.parse()?, Some(first.parse()?), index);
            netlink.add_route(&route).await?;
            let error = netlink.add_route(&route).await.unwrap_err();
            assert_eq!(error.downcast_ref(), Some(&Errno::EEXIST));
            assert_eq!(error.to_string(), format!("route {destination}: add"));
            netlink
                .replace_route(&Route {
                    gateway: Some(second.parse()?),
                    ..route.clone()
                })
                .await?;
            let ip = route.destination.iter().nth(9).context("host")?;
            let expected = RouteTo {
                interface: index,
                gateway: Some(second.parse()?),
                source: Some(
                    if ip.is_ipv4() {
                        "192.168.1.11"
                    } else {
                        "fd01::11"
                    }
                    .parse()?,
                ),
            };
            assert_eq!(netlink.route_to(ip).await?, Some(expected));
        }
        Ok(())
    });
}

#[test]
fn filters_select_by_family_interface_and_table() {
    testing::netlink(async |netlink| {
        let index = uplink(netlink).await?;
        netlink
            .add_route(&Route::new("10.244.2.0/24".parse()?, None, index))
            .await?;
        netlink
            .add_route(&Route::new("fd00:2::/64".parse()?, None, index))
            .await?;
        assert_eq!(netlink.routes(own()).await?.len(), 2);
        for (family, v4) in [(Family::V4, true), (Family::V6, false)] {
            let listed = netlink
                .routes(Filter {
                    family: Some(family),
                    ..own()
                })
                .await?;
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].destination.is_ipv4(), v4);
        }
        assert_eq!(
            netlink
                .routes(Filter {
                    interface: Some(index + 1),
                    ..own()
                })
                .await?,
            []
        );
        assert_eq!(
            netlink
                .routes(Filter {
                    table: Some(12345),
                    ..own()
                })
                .await?,
            []
        );
        Ok(())
    });
}

#[test]
fn an_address_without_a_route_is_no_error() {
    testing::netlink(async |netlink| {
        let index = uplink(netlink).await?;
        for ip in ["8.8.8.8", "2001:db8::1"] {
            assert_eq!(netlink.route_to(ip.parse()?).await?, None);
        }
        let on_link = netlink
            .route_to("192.168.1.12".parse()?)
            .await?
            .context("route")?;
        assert_eq!((on_link.interface, on_link.gateway), (index, None));
        Ok(())
    });
}
