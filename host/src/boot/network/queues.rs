//! Interrupts of a network card's queues, to the CPUs of the workers: queue 0 to the first worker's, and so on, so that
//! a packet is handled where its request will be (`listen_on_cpu` does the rest).
//!
//! A queue is known by the number at the end of its interrupt's name: `virtio0-input.1`, `eth0-TxRx-1`,
//! `mlx5_comp1@pci:0000:01:00.0`. Interrupts that the driver has spread itself refuse to be moved, and are left.
//! Unmeasured: no machine with several queues was at hand.

use std::fs;
use std::path::Path;

use super::interface::Interface;
use crate::config::unit::cpu_list;
use crate::tuning::SPARE_FROM;

/// Interrupts of one card that are looked at.
const INTERRUPTS_MAX: usize = 1024;

/// Steers them, and returns how many were.
pub(super) fn steer(interface: &Interface) -> usize {
    let cpus =
        worker_cpus(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default());
    let device = Path::new("/sys/class/net").join(&interface.name).join("device");
    // A virtio device's interrupts are those of the PCI device that it lies in.
    let folders = [device.join("msi_irqs"), device.join("../msi_irqs")];
    let numbers = folders.iter().flat_map(|folder| names(folder)).take(INTERRUPTS_MAX);
    let mut steered = 0;
    for number in numbers {
        let folder = Path::new("/proc/irq").join(&number);
        // The interrupt's name is that of a folder in its own.
        let queue = names(&folder).iter().find_map(|name| queue_of(name));
        let Some(cpu) = queue.and_then(|queue| cpus.get(queue % cpus.len().max(1))) else {
            continue;
        };
        steered +=
            usize::from(fs::write(folder.join("smp_affinity_list"), cpu.to_string()).is_ok());
    }
    steered
}

fn worker_cpus(online: &str) -> Vec<u32> {
    let mut cpus = cpu_list(online.trim()).unwrap_or_default();
    if SPARE_FROM <= cpus.len() {
        cpus.remove(0);
    }
    cpus
}

fn queue_of(interrupt: &str) -> Option<usize> {
    let name = interrupt.split('@').next().unwrap_or_default();
    let digits = name.len() - name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_known_by_the_end_of_its_name() {
        for (name, expected) in [
            ("virtio0-input.0", Some(0)),
            ("virtio12-output.3", Some(3)),
            ("eth0-TxRx-11", Some(11)),
            ("mlx5_comp7@pci:0000:01:00.0", Some(7)),
            ("virtio0-config", None),
            ("", None),
        ] {
            assert_eq!(queue_of(name), expected, "{name}");
        }
    }

    #[test]
    fn the_first_cpu_is_spared_where_there_are_several() {
        assert_eq!(worker_cpus("0-1\n"), [0, 1]);
        assert_eq!(worker_cpus("0-3\n"), [1, 2, 3]);
        assert!(worker_cpus("").is_empty());
    }
}
