//! The kernel modules that the first steps of booting need, and what these need in turn.

use std::collections::BTreeMap;

/// The modules of `wanted` and what they depend on, each after what it depends on, as paths from `modules.dep`. What is
/// not there is built in.
pub(super) fn in_order<'a>(modules_dep: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut by_name = BTreeMap::new();
    for line in modules_dep.lines() {
        if let Some((path, needs)) = line.split_once(':') {
            by_name.insert(name(path), (path, needs));
        }
    }
    let mut order: Vec<&str> = Vec::new();
    for (path, needs) in wanted.iter().filter_map(|wanted| by_name.get(*wanted)) {
        // depmod lists all that it needs, what is needed first being last.
        for path in needs.split_whitespace().rev().chain([*path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order
}

/// Its name, from `kernel/fs/9p/9p.ko.xz`; some of them are written with either dash.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let name = file.split(".ko").next().unwrap_or(file);
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko
kernel/net/9p/9pnet.ko:
kernel/net/9p/9pnet_virtio.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko kernel/net/9p/9pnet.ko
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
kernel/fs/fscache/fscache.ko:
";

    #[test]
    fn each_comes_once_and_after_what_it_needs() {
        let order = in_order(DEP, &["9pnet_virtio", "9p", "ext4"]);
        let names: Vec<_> = order.into_iter().map(name).collect();
        assert_eq!(
            names,
            [
                "9pnet",
                "virtio",
                "virtio_ring",
                "9pnet_virtio",
                "fscache",
                "9p"
            ]
        );
    }

    #[test]
    fn dashes_and_compression_are_no_part_of_a_name() {
        assert_eq!(in_order(DEP, &["virtio_rng"]).len(), 1);
    }
}
